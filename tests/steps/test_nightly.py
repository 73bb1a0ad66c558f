"""A night on a small shop, read back by an independent reader and checked by an independent recomputation."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from allmrec.errors import BundleError, ConfigError
from allmrec.night.item_table import ItemTable
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.slot_filling import TITLE_DUPLICATE_ABOVE
from allmrec.runtime import workers
from allmrec.runtime.night import Night
from allmrec.scoring.scorer import Scorer
from allmrec.steps.nightly import run_backfill, run_nightly
from allmrec.steps.score import run_score
from tests.steps.conftest import RUN_DATE, NewContext, asked
from tests.steps.reading import rows, version
from tests.unit.test_slot_filling import share_of_pairs

Catalogue = dict[str, dict[str, Any]]
DAY = {"run_date": str(RUN_DATE)}


@pytest.fixture(scope="module")
def log(shop: Path) -> pd.DataFrame:
    """The raw log, straight from the generated file, before the cut-off."""
    cut_off = datetime.combine(RUN_DATE, datetime.min.time(), timezone.utc)
    with (shop.parent / "files" / "interactions.csv").open(encoding="utf-8") as file:
        frame = pd.DataFrame(list(csv.DictReader(file)))
    when = pd.to_datetime(frame["event_time"], format="ISO8601", utc=True, errors="coerce")
    return frame[when < cut_off].assign(when=when[when < cut_off])


@pytest.fixture(scope="module")
def catalogue(shop: Path) -> Catalogue:
    lines = (shop.parent / "files" / "items.jsonl").read_text(encoding="utf-8").splitlines()
    return {str(row["item_id"]): row for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def recommendations(shop: Path) -> pd.DataFrame:
    return rows(shop, "recommendations", **DAY)


def assert_same_rows(root: Path, recommendations: pd.DataFrame) -> None:
    """Assert that the night's lists are these, whatever run made them and when."""
    order = ["user_id", "rank"]
    again = rows(root, "recommendations", **DAY).sort_values(order, ignore_index=True)
    columns = [column for column in again.columns if column not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(
        again[columns], recommendations.sort_values(order, ignore_index=True)[columns], check_exact=True
    )


def test_every_recommended_item_is_unseen_available_and_there_once(
    recommendations: pd.DataFrame, log: pd.DataFrame, catalogue: Catalogue
) -> None:
    seen = log.groupby("user_id")["item_id"].agg(set).to_dict()
    for user, mine in recommendations.groupby("user_id"):
        assert mine["item_id"].is_unique
        assert not set(mine["item_id"]) & seen.get(user, set())
        assert sorted(mine["rank"]) == list(range(1, len(mine) + 1))
    assert all(catalogue[item].get("available") is not False for item in recommendations["item_id"])


def test_nobody_is_lost(shop: Path, recommendations: pd.DataFrame) -> None:
    users = set(rows(shop, "user_sequences", **DAY)["user_id"])
    candidates = rows(shop, "candidates", **DAY)
    unservable = set(candidates.loc[candidates["item_ids"].map(len) == 0, "user_id"])
    assert set(recommendations["user_id"]) | unservable == users
    assert not set(recommendations["user_id"]) & unservable
    run = rows(shop, "runs").query("step == 'score' and status == 'done'").iloc[-1]
    counts = dict(run["counts"])
    assert counts["users_in"] == len(users) == counts["users_out"] + counts["unservable"]


def test_the_llm_orders_exactly_the_users_active_in_the_last_days(
    recommendations: pd.DataFrame, log: pd.DataFrame, shop: Path
) -> None:
    sequences = rows(shop, "user_sequences", **DAY).set_index("user_id")
    since = pd.Timestamp(RUN_DATE, tz="UTC") - pd.Timedelta(days=7)
    last = pd.to_datetime(sequences["last_event_time"], utc=True)
    active = set(last[last >= since].index)
    by_source = recommendations[recommendations["rank"] == 1].groupby("source")["user_id"].agg(set)
    assert active
    assert by_source["llm"] <= active
    assert not by_source.get("cf", set()) & active
    without = {user for user, items in sequences["item_ids"].items() if len(items) == 0}
    assert without <= by_source["popular"]


def test_users_without_any_event_get_the_popular_list_with_its_reason(recommendations: pd.DataFrame) -> None:
    popular = recommendations[recommendations["source"] == "popular"]
    assert len(popular)
    assert popular["probability"].isna().all()
    assert set(popular["fallback_reason"]) == {"no_history"}


def test_probabilities_follow_the_order_and_scores_are_finite(recommendations: pd.DataFrame) -> None:
    for _, mine in recommendations[recommendations["source"] != "popular"].groupby("user_id"):
        mine = mine.sort_values("rank")
        assert mine["score"].is_monotonic_decreasing
        assert mine["probability"].is_monotonic_decreasing
        assert 0 < mine["probability"].sum() <= 1 + 1e-9


def test_new_items_are_recommended_without_retraining(
    recommendations: pd.DataFrame, catalogue: Catalogue, log: pd.DataFrame
) -> None:
    never_bought = set(catalogue) - set(log["item_id"])
    assert set(recommendations["item_id"]) & never_bought


def test_a_mail_shows_at_most_so_many_of_one_category_while_others_are_left(
    shop: Path, recommendations: pd.DataFrame, catalogue: Catalogue
) -> None:
    mails = rows(shop, "email_recommendations", **DAY)
    assert len(mails) == recommendations["user_id"].nunique()
    full = recommendations.groupby("user_id")["item_id"].agg(list).to_dict()
    leaf = {item: (row.get("categories") or [item])[-1] for item, row in catalogue.items()}
    vectors = ItemTable(shop / "_bundles" / recommendations["bundle_id"].iloc[0]).text_vectors

    def is_near(one: str, other: str) -> bool:
        both = vectors(np.array([one, other], dtype=object))
        titles = (catalogue[item]["title"] for item in (one, other))
        return float(both[0] @ both[1]) > 0.9 or share_of_pairs(*titles) > TITLE_DUPLICATE_ABOVE

    num_over = 0
    for user, slots in zip(mails["user_id"], mails["slots"], strict=True):
        items = [slot["item_id"] for slot in slots]
        assert len(items) == min(5, len(full[user]))
        assert [slot["rank"] for slot in slots] == sorted(slot["rank"] for slot in slots)
        of_leaf = Counter(leaf[item] for item in items)
        num_over += max(of_leaf.values()) > 2
        if max(of_leaf.values()) > 2:
            left = [item for item in full[user] if item not in items and of_leaf[leaf[item]] < 2]
            assert all(any(is_near(item, one) for one in items) for item in left)
    run = rows(shop, "runs").query("step == 'publish' and status == 'done'").iloc[-1]
    assert dict(run["counts"])["emails_over_cap"] == num_over < len(mails)


def test_a_feed_shows_the_best_items_with_titles(shop: Path, recommendations: pd.DataFrame) -> None:
    feeds = rows(shop, "feed_recommendations", **DAY)
    lists = recommendations.sort_values("rank").groupby("user_id")["item_id"].agg(list).to_dict()
    assert max(map(len, lists.values())) == 20
    for user, slots in zip(feeds["user_id"], feeds["slots"], strict=True):
        assert [slot["item_id"] for slot in slots] == lists[user][:10]
        assert all(slot["title"] for slot in slots)


def test_the_same_night_again_writes_nothing(shop: Path, new_context: NewContext) -> None:
    tables = (
        "user_sequences",
        "candidates",
        "recommendations",
        "email_recommendations",
        "feed_recommendations",
        "rejected_rows",
        "runs",
    )
    before = {table: version(shop, table) for table in tables}
    run_nightly(new_context(shop), RUN_DATE)
    assert {table: version(shop, table) for table in tables} == before


def test_another_chunking_of_spark_leaves_the_same_rows(
    copy_of_shop: Path, new_context: NewContext, recommendations: pd.DataFrame
) -> None:
    context = new_context(copy_of_shop, "spark.shuffle_partitions=5", "llm.token_budget=4096")
    context.spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    try:
        for table in ("user_sequences", "candidates", "recommendations"):
            context.spark.sql(f"DELETE FROM delta.`{copy_of_shop / table}`")
        context.spark.sql(f"DELETE FROM delta.`{copy_of_shop / 'runs'}` WHERE step <> 'train'")
        run_nightly(context, RUN_DATE)
    finally:
        context.spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert_same_rows(copy_of_shop, recommendations)


def test_where_workers_would_share_a_gpu_this_process_alone_asks_the_llm_and_the_rows_are_the_same(
    copy_of_shop: Path,
    new_context: NewContext,
    recommendations: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_here = Counter[str]()
    score = Scorer.score

    def counted(scorer: Scorer, lists: CandidateLists) -> CandidateLists:
        asked_here[lists.users[0]] += 1
        return score(scorer, lists)

    monkeypatch.setattr(workers, "would_share_a_gpu", lambda *_: True)
    monkeypatch.setattr(Scorer, "score", counted)
    run_score(Night(asked(new_context(copy_of_shop), force=True), RUN_DATE))
    by_llm = recommendations.loc[recommendations["source"] == "llm", "user_id"].nunique()
    assert len(asked_here) == -(-by_llm // 16)  # one call for each chunk
    assert_same_rows(copy_of_shop, recommendations)


def test_a_night_before_any_bundle_is_refused_and_touches_nothing(
    shop: Path, new_context: NewContext
) -> None:
    before = version(shop, "runs")
    with pytest.raises(BundleError, match="trained_before"):
        run_nightly(new_context(shop), date(2026, 5, 1))
    assert version(shop, "runs") == before


def test_a_backfill_runs_every_date_and_sees_no_later_event(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    run_backfill(new_context(copy_of_shop), date(2026, 5, 29), date(2026, 5, 30))
    for day in ("2026-05-29", "2026-05-30"):
        sequences = rows(copy_of_shop, "user_sequences", run_date=day)
        last = pd.to_datetime(sequences["last_event_time"].dropna(), utc=True)
        assert last.max() < pd.Timestamp(day, tz="UTC")
        assert len(rows(copy_of_shop, "feed_recommendations", run_date=day))
    assert len(rows(copy_of_shop, "recommendations", **DAY))
    finished = rows(copy_of_shop, "runs").query("status == 'done'")
    assert Counter(str(day) for day in finished.loc[finished["step"] == "score", "run_date"]) == {
        "2026-05-29": 1,
        "2026-05-30": 1,
        str(RUN_DATE): 1,
    }
    before = version(copy_of_shop, "runs")
    run_backfill(new_context(copy_of_shop), date(2026, 5, 29), date(2026, 5, 30))
    assert version(copy_of_shop, "runs") == before, "every date was there already"


def test_a_backfill_of_a_reversed_range_is_refused(shop: Path, new_context: NewContext) -> None:
    with pytest.raises(ConfigError, match="before the first"):
        run_backfill(new_context(shop), date(2026, 5, 30), date(2026, 5, 29))


def test_constrained_generation_puts_first_what_the_llms_ranking_has_first(
    copy_of_shop: Path, new_context: NewContext, recommendations: pd.DataFrame
) -> None:
    first = {}
    for mode in ("rank", "generate"):
        run_nightly(new_context(copy_of_shop, f"scoring.mode={mode}", "scoring.order=llm"), RUN_DATE)
        found = rows(copy_of_shop, "recommendations", **DAY)
        by_llm = found[(found["source"] == "llm") & (found["rank"] == 1)]
        first[mode] = by_llm.set_index("user_id")["item_id"].to_dict()
        assert by_llm["llm_logprob"].notna().all()
        assert len(found) == len(recommendations)
    assert first["generate"] == first["rank"]
    assert first["rank"]


def test_the_order_of_the_cf_model_alone_asks_no_llm(
    copy_of_shop: Path, new_context: NewContext, recommendations: pd.DataFrame
) -> None:
    run_nightly(new_context(copy_of_shop, "scoring.order=cf"), RUN_DATE)
    found = rows(copy_of_shop, "recommendations", **DAY)
    assert set(found["source"]) == {"cf", "popular"}
    assert found["llm_logprob"].isna().all()
    known = found[(found["source"] == "cf") & found["cf_score"].notna()].sort_values(["user_id", "rank"])
    assert known.groupby("user_id")["cf_score"].agg(lambda scores: scores.is_monotonic_decreasing).all()
    assert len(found) == len(recommendations)


def test_nobody_is_read_by_an_llm_that_training_found_not_worth_its_cost(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    context = new_context(copy_of_shop, "scoring.order=auto")
    [bundle] = (copy_of_shop / "_bundles").glob("*/decision.json")
    # Its weights are random, and eight users were asked.
    assert json.loads(bundle.read_text())["served"] == "blend_without_llm"
    run_nightly(context, RUN_DATE)
    found = rows(copy_of_shop, "recommendations", **DAY)
    assert set(found["source"]) == {"cf", "popular"}
    assert found["llm_logprob"].isna().all()

"""Evaluation on a small shop: a bundle that has not seen the targets, the same lists for every ranker."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from allmrec.errors import BundleError, ConfigError, InputError
from allmrec.evaluation.protocols import PROTOCOLS
from allmrec.ranking.rankers import entries, label_of
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.steps.evaluate import NUM_EXAMPLES, run_evaluate
from allmrec.steps.train import run_train
from allmrec.views.compared_bundles import compared_bundles
from tests.bench import bench_genre, bench_prompts, bench_scenarios, train_snapshot
from tests.steps.conftest import RUN_DATE, NewContext, copied_shop, settings
from tests.steps.reading import rows

DEMO = Path(__file__).parents[2] / "conf" / "demo.yaml"
NUM_SAMPLED = 30
SAMPLED = ("uniform", "popular")


class Evaluated(NamedTuple):
    context: Context
    tables: Path
    report: str


@pytest.fixture(scope="module")
def evaluated(new_context: NewContext, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    tables = copied_shop(shop, tmp_path_factory.mktemp("evaluated"))
    run_train(Night(new_context(tables, "training.purpose=evaluation"), RUN_DATE))
    context = new_context(tables)
    return Evaluated(context, tables, run_evaluate(context, None, tables / "page.html"))


@pytest.fixture(scope="module")
def predictions(evaluated: Evaluated) -> pd.DataFrame:
    return rows(evaluated.tables, "evaluation_predictions")


def test_a_serving_bundle_is_refused_by_name(shop: Path, new_context: NewContext) -> None:
    with pytest.raises(BundleError, match="seen the targets"):
        run_evaluate(new_context(shop), None)


def test_a_bundle_of_another_cut_off_is_refused_by_name(evaluated: Evaluated) -> None:
    with pytest.raises(BundleError, match=f"trained before {RUN_DATE}, expected 2026-05-30"):
        run_evaluate(evaluated.context, RUN_DATE.replace(month=5, day=30))


def test_every_ranker_orders_the_same_candidates_under_every_protocol(predictions: pd.DataFrame) -> None:
    assert set(predictions["scenario"]) == {"leave_one_out"}
    assert set(predictions["protocol"]) == set(PROTOCOLS)
    num_users = predictions["user_id"].nunique()
    for protocol, of_protocol in predictions.groupby("protocol"):
        models = {name for name, one in entries().items() if protocol != "catalogue" or one.scores_catalogue}
        expected = NUM_SAMPLED if protocol in SAMPLED else num_users
        assert of_protocol["user_id"].nunique() == expected
        for _, of_user in of_protocol.groupby("user_id"):
            assert set(of_user["model"]) == models
            assert of_user["target"].nunique() == 1
            if protocol != "catalogue":
                assert of_user["candidates"].map(tuple).nunique() == 1
                assert all(sorted(ranks) == list(range(1, 21)) for ranks in of_user["ranks"])
            if protocol in SAMPLED:
                assert of_user["candidates"].iloc[0][0] == of_user["target"].iloc[0]


def test_the_rank_of_the_target_is_its_rank_among_the_candidates(predictions: pd.DataFrame) -> None:
    for row in predictions.itertuples():
        ranks = dict(zip(row.candidates, row.ranks, strict=True))
        assert (None if pd.isna(row.target_rank) else row.target_rank) == ranks.get(row.target)
    retrieved = predictions[predictions["protocol"] == "retrieved"]["target_rank"]
    assert 0 < retrieved.notna().mean() < 1


def test_the_target_is_a_users_newest_item(predictions: pd.DataFrame, evaluated: Evaluated) -> None:
    log = evaluated.context.tables.read("interactions").where(F.col("event_time") < F.lit(RUN_DATE))
    # Events at one time stand in the order of a hash.
    place = F.struct("event_time", F.xxhash64("user_id", "item_id", "event_time"))
    newest = {user: item for user, item in log.groupBy("user_id").agg(F.max_by("item_id", place)).collect()}
    targets = predictions.drop_duplicates("user_id").set_index("user_id")["target"]
    assert targets.to_dict() == {user: newest[user] for user in targets.index}


def test_an_item_that_the_user_had_before_is_a_miss_where_seen_items_are_left_out(
    predictions: pd.DataFrame, evaluated: Evaluated
) -> None:
    [targets] = (evaluated.tables / "_snapshots").glob("*/targets")
    users = pd.read_parquet(targets)
    again = [target in history for target, history in zip(users["target"], users["history"], strict=True)]
    repeated = predictions[predictions["user_id"].isin(users.loc[again, "user_id"])]
    assert len(repeated)
    assert repeated.query("protocol not in @SAMPLED")["target_rank"].isna().all()


def test_targets_and_negatives_were_never_in_the_history_that_is_scored(
    predictions: pd.DataFrame, evaluated: Evaluated
) -> None:
    [targets] = (evaluated.tables / "_snapshots").glob("*/targets")
    histories = pd.read_parquet(targets).set_index("user_id")["history"].map(set)
    log = rows(evaluated.tables, "interactions").groupby("user_id")["item_id"].agg(set)
    assert set(predictions["user_id"]) == set(histories.index)
    for protocol, user, target, candidates in predictions[
        ["protocol", "user_id", "target", "candidates"]
    ].itertuples(index=False):
        assert histories[user]
        had = log[user] if target in histories[user] else log[user] - {target}
        assert not set(candidates) & had or protocol in SAMPLED, f"{protocol}: items that the user had"
        assert not (set(candidates) - {target}) & log[user], f"{protocol}: items that the user had"


def test_every_user_with_two_items_has_a_target(predictions: pd.DataFrame, evaluated: Evaluated) -> None:
    log = rows(evaluated.tables, "interactions")
    past = log[pd.to_datetime(log["event_time"], utc=True) < pd.Timestamp(RUN_DATE, tz="UTC")]
    num_items = past.groupby("user_id")["item_id"].nunique()
    assert set(predictions["user_id"]) == set(num_items[num_items >= 2].index)


def test_results_have_intervals_around_their_values_and_the_number_of_users(
    evaluated: Evaluated, predictions: pd.DataFrame
) -> None:
    results = rows(evaluated.tables, "evaluation_results")
    overall = results[results["scenario"] == "all"]
    assert set(overall["metric"]) >= {"Hit@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "recall"}
    assert ((overall["low"] <= overall["value"]) & (overall["value"] <= overall["high"])).all()
    sizes = overall.groupby("protocol")["n"].unique().map(list).to_dict()
    num_users = predictions["user_id"].nunique()
    assert sizes == {
        "retrieved": [num_users],
        "catalogue": [num_users],
        "uniform": [NUM_SAMPLED],
        "popular": [NUM_SAMPLED],
    }
    assert {"found", "warm", "cold"} <= set(results["scenario"])
    assert set(overall[overall["protocol"] == "catalogue"]["model"]) == set(entries())


def test_the_report_names_every_ranker_and_compares_the_served_order(evaluated: Evaluated) -> None:
    for model in entries():
        assert label_of(model) in evaluated.report
    assert "End to end: a next item that is not among the 20 retrieved is a miss" in evaluated.report
    assert "the served order against the others, by the same users" in evaluated.report
    assert "whole catalogue, NDCG@10 by the popularity of the next item" in evaluated.report
    assert "do probabilities mean what they say?" in evaluated.report
    assert (
        "Decision of the training: the blend without the LLM is served: on the lists of " in evaluated.report
    )
    assert evaluated.report.count("- then came: ") == NUM_EXAMPLES


def test_the_report_is_markdown_whose_columns_stand_below_each_other(evaluated: Evaluated) -> None:
    for block in evaluated.report.split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.splitlines()}) == 1
            assert len({line.count(" | ") for line in block.splitlines()}) == 1
        elif block.startswith("#"):
            assert re.match(r"## \S", block)


def test_what_reads_the_llm_costs_more_than_what_does_not(evaluated: Evaluated) -> None:
    results = rows(evaluated.tables, "evaluation_results").query("metric == 's per 1,000 users'")
    assert set(results["protocol"]) == {"retrieved"}
    seconds = results.set_index("model")["value"]
    assert set(seconds.index) == set(entries())
    assert 0 < seconds["cf"] == seconds["blend_without_llm"] < seconds["llm"] == seconds["served"]
    [of_llm] = results.query("model == 'llm'")["n"]
    assert NUM_SAMPLED <= of_llm < results.query("model == 'cf'")["n"].iloc[0]
    assert "## quality against cost" in evaluated.report


def test_figures_of_lists_are_of_the_sampled_users_whom_the_llm_all_read(
    evaluated: Evaluated, predictions: pd.DataFrame
) -> None:
    results = rows(evaluated.tables, "evaluation_results").query("scenario == 'lists'")
    assert (results.query("metric == 'AUC per user'")["n"] == NUM_SAMPLED).all()
    of_served = results.query("protocol == 'retrieved' and model == 'served'").set_index("metric")["value"]
    assert 0 < of_served["coverage@10"] <= 1
    assert of_served["novelty@10"] > 0
    assert 0 < of_served["diversity@10"] < 1.5
    assert 0 <= of_served["calibration error"] < 0.2
    assert 0.3 < results.query("protocol == 'uniform' and metric == 'AUC'")["value"].max() <= 1
    sampled = set(predictions.query("protocol == 'uniform'")["user_id"])
    read = predictions.query("protocol == 'retrieved' and model == 'llm'").set_index("user_id")
    for user in sampled:
        assert len(set(read.loc[user, "scores"])) > 1, "the LLM had no voice in this list"


def test_probabilities_are_unconditional_by_the_recall_that_the_bundle_keeps(
    evaluated: Evaluated, predictions: pd.DataFrame
) -> None:
    [bundle_id] = set(predictions["bundle_id"])
    blends = json.loads((evaluated.tables / "_bundles" / bundle_id / "blend.json").read_text())
    recall = blends["with_llm"]["recall"]
    assert 0 < recall < 1
    of_served = predictions.query("protocol == 'retrieved' and model == 'served'")["probabilities"]
    sums = [np.sum(values) for values in of_served if values[0] is not None and not np.isnan(values[0])]
    assert len(sums) > 100
    assert sums == pytest.approx([recall] * len(sums))
    uncalibrated = predictions.query("protocol == 'uniform' or model == 'popularity'")
    assert uncalibrated["probabilities"].isna().all()


def test_the_page_shows_figures_and_users_and_needs_nothing_from_outside(
    evaluated: Evaluated, predictions: pd.DataFrame
) -> None:
    text = (evaluated.tables / "page.html").read_text(encoding="utf-8")
    tree = ElementTree.fromstring(text[text.index("<body>") : text.index("</html>")])
    assert not re.search(r"(src|href|url)\s*[=(]", text)
    bars = [one for one in tree.iter("svg") if len(list(one.iter("rect"))) >= 5]
    assert len(bars) >= 4
    words = " ".join(tree.itertext())
    for expected in (
        "Own retrieved list",
        "Quality against cost",
        "came true",
        "then came",
        label_of("served"),
    ):
        assert expected in words
    titles = rows(evaluated.tables, "items").set_index("item_id")["title"]
    shown = [title for title in titles[predictions["target"].unique()] if title in words]
    assert shown, "no next item is shown"


def test_an_evaluation_of_nobody_says_so(
    evaluated: Evaluated, new_context: NewContext, tmp_path: Path
) -> None:
    tables = copied_shop(evaluated.tables, tmp_path)
    [targets] = (tables / "_snapshots").glob("*/targets")
    nobody = pd.read_parquet(targets).iloc[:0]
    schema = pq.read_schema(next(targets.glob("*.parquet")))
    shutil.rmtree(targets)
    targets.mkdir()
    pq.write_table(pa.Table.from_pandas(nobody, schema=schema), targets / "part-0.parquet")
    before = rows(tables, "evaluation_results")
    with pytest.raises(InputError, match=f"no user has two items before {RUN_DATE}, expected"):
        run_evaluate(new_context(tables), None)
    assert len(rows(tables, "evaluation_results")) == len(before)


def test_two_bundles_are_compared_by_what_their_evaluations_left(
    evaluated: Evaluated, new_context: NewContext
) -> None:
    [first] = set(rows(evaluated.tables, "evaluation_predictions")["bundle_id"])
    weaker = ("training.purpose=evaluation", "cf.epochs=1", "cf.evaluate_every=1")
    second = run_train(Night(new_context(evaluated.tables, *weaker), RUN_DATE))
    with pytest.raises(InputError, match=f"bundle {second}: not in evaluation_predictions, .*{first}"):
        compared_bundles(evaluated.context, first, second)
    settings = (f"bundle.id={second}", "evaluation.protocols=[catalogue]")
    run_evaluate(new_context(evaluated.tables, *settings), None)
    text = run_evaluate(new_context(evaluated.tables, *settings, "evaluation.max_history=0"), None)
    assert "whole catalogue, all users; histories cut to 0 items (n = " in text
    results = rows(evaluated.tables, "evaluation_results").query(
        "bundle_id == @second and protocol == 'catalogue'"
    )
    by_scenario = results.query("metric == 'NDCG@10'").set_index(["scenario", "model"])["value"]
    assert by_scenario["history_0/all", "popularity"] == by_scenario["all", "popularity"]
    assert by_scenario["history_0/all", "text"] < by_scenario["all", "text"]
    assert {"history_0/cold", "cold"} <= set(results["scenario"])
    text = compared_bundles(evaluated.context, second, f"{second}/history_0")
    [of_text] = [line for line in text.splitlines() if label_of("text") in line]
    assert "NDCG@10 -" in of_text
    text = compared_bundles(evaluated.context, first, second)
    assert f"bundle {second} against bundle {first}" in text
    [of_cf] = [line for line in text.splitlines() if label_of("cf") in line]
    [of_popularity] = [line for line in text.splitlines() if label_of("popularity") in line]
    assert "whole catalogue" in of_cf
    assert "NDCG@10 +0.0000 [+0.0000, +0.0000]" in of_popularity
    assert "own retrieved list" not in text, "the second one was not evaluated so"


def ndcg(tables: Path, bundle_id: str) -> pd.Series:
    """NDCG@10 in the whole catalogue by (scenario, model)."""
    results = rows(tables, "evaluation_results")
    own = results.query("bundle_id == @bundle_id and protocol == 'catalogue' and metric == 'NDCG@10'")
    return own.set_index(["scenario", "model"])["value"]


def test_without_texts_what_reads_texts_is_lost_and_what_does_not_is_as_it_was(
    evaluated: Evaluated, new_context: NewContext
) -> None:
    [bundle_id] = set(
        rows(evaluated.tables, "evaluation_predictions").query("protocol == 'retrieved'")["bundle_id"]
    )
    settings = (
        f"bundle.id={bundle_id}",
        "evaluation.protocols=[catalogue]",
        "evaluation.text=missing",
    )
    text = run_evaluate(new_context(evaluated.tables, *settings), None)
    assert "whole catalogue, all users; no titles, no descriptions (n = " in text
    values = ndcg(evaluated.tables, bundle_id)
    assert values["missing_text/all", "cf"] == values["all", "cf"]
    assert values["missing_text/all", "alignment"] < 0.7 * values["all", "alignment"]
    run_evaluate(new_context(evaluated.tables, *settings, "evaluation.text_share=0.3"), None)
    values = ndcg(evaluated.tables, bundle_id)
    assert (
        values["missing_text/all", "alignment"]
        < values["missing_text_0.3/all", "alignment"]
        < values["all", "alignment"]
    )


def test_a_bundle_of_another_shop_knows_the_items_by_their_texts_alone(
    evaluated: Evaluated, new_context: NewContext, shop: Path, tmp_path: Path
) -> None:
    """The other shop is a copy of this one, so that what only reads texts has to find the same."""
    [bundle_id] = set(
        rows(evaluated.tables, "evaluation_predictions").query("protocol == 'retrieved'")["bundle_id"]
    )
    tables = copied_shop(shop, tmp_path)
    settings = (f"evaluation.trained_on={evaluated.tables}", f"bundle.id={bundle_id}")
    text = run_evaluate(new_context(tables, *settings), RUN_DATE)
    assert "a bundle of another shop, which knows the items by their texts alone" in text
    values, own = ndcg(tables, bundle_id), ndcg(evaluated.tables, bundle_id)
    assert values["other_shop/all", "text"] == own["all", "text"]
    assert values["other_shop/all", "cf"] < 0.5 * own["all", "cf"]
    assert values["other_shop/all", "alignment"] > values["other_shop/all", "cf"]
    with pytest.raises(InputError, match=r"expected one of .*/other_shop"):
        compared_bundles(new_context(tables), bundle_id, f"{bundle_id}/other_shop")


def test_this_shop_is_not_another_one(evaluated: Evaluated, new_context: NewContext) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation\.trained_on: .*, which is tables.root; expected another"
    ):
        run_evaluate(new_context(evaluated.tables, f"evaluation.trained_on={evaluated.tables}/"), None)


def test_prompts_are_compared_on_one_cf_model_by_the_same_users(
    evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = ["as it is", "candidates listed", "no soft tokens"]
    bench_prompts.main(evaluated.tables, str(DEMO), 12, variants, settings(evaluated.tables))
    text = capsys.readouterr().out
    assert [line.partition(" (")[0] for line in text.splitlines() if line.endswith(" s)")] == variants
    as_it_is = text.partition("candidates listed")[0]
    assert as_it_is.count("NDCG@10 +0.0000 [+0.0000, +0.0000], n = 12") == len(bench_prompts.SHOWN)


def test_training_and_ranking_without_spark_give_the_ranks_of_the_commands(
    evaluated: Evaluated, predictions: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop.yaml").write_text("training: {purpose: evaluation}\n")
    manifest = evaluated.tables / "_bundles" / predictions["bundle_id"].iloc[0] / "manifest.json"
    name = json.loads(manifest.read_text())["fingerprint"]
    copied = tmp_path / "tables" / "_snapshots" / name
    shutil.copytree(evaluated.tables / "_snapshots" / name, copied)
    asked = (str(tmp_path / "shop.yaml"), settings(evaluated.tables))
    train_snapshot.main(tmp_path / "tables", *asked)
    bench_scenarios.rank(tmp_path / "tables", tmp_path / "found", asked[0], ["plain", "history_1"], asked[1])
    ranks = pd.read_parquet(tmp_path / "found.parquet")
    plain = ranks[ranks["condition"] == "plain"].drop(columns=["condition", "tail"])
    expected = predictions.pivot(index=["protocol", "user_id"], columns="model", values="target_rank")
    pd.testing.assert_frame_equal(
        plain.set_index(["protocol", "user_id"])[list(expected)].astype("Float64").rename_axis(columns=None),
        expected.astype("Float64").rename_axis(columns=None),
    )
    capsys.readouterr()
    bench_scenarios.show([tmp_path / "found"])
    text = capsys.readouterr().out
    assert f"found, plain, retrieved, all: n = {predictions['user_id'].nunique()}" in text
    assert "found, history_1, retrieved, found: n = " in text
    assert "served order against blend without LLM: NDCG@10 " in text


def test_the_llm_is_asked_for_a_users_favourite_genre_with_soft_tokens_and_without(
    evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_genre.main(evaluated.tables, str(DEMO), 6, settings(evaluated.tables))
    text = capsys.readouterr().out
    assert "n = 6 users" in text
    for label in ("most users' favourite", "A-LLMRec, written", "LLM-only, likeliest"):
        assert label in text
    assert bench_genre.most_frequent(Counter(a=2, b=2, c=1)) == {"a", "b"}
    assert bench_genre.first_named("She likes sci-fi comedies, drama", ["Drama", "Sci-Fi"]) == "Sci-Fi"
    assert bench_genre.first_named("nothing", ["Drama"]) is None

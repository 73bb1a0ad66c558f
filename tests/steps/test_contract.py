"""What nights meet: reruns, live tables, VACUUM, broken catalogues, kills, deadlines, other nights."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from allmrec.errors import ConfigError, GateError, SupersededError, TableError
from allmrec.night.gates import RULES, Measured, registry
from allmrec.runtime.night import Night
from allmrec.steps import nightly, train
from allmrec.steps.evaluate import run_evaluate
from allmrec.steps.nightly import run_nightly
from allmrec.steps.publish import run_publish
from allmrec.steps.score import run_score
from allmrec.steps.train import run_train
from allmrec.tables.staging import Staging
from allmrec.training.work import Work
from tests.steps.conftest import RUN_DATE, TRAINED_BEFORE, NewContext, asked
from tests.steps.reading import comparable, rows, version

DAY = {"run_date": str(RUN_DATE)}
NEXT = RUN_DATE + timedelta(days=1)
NIGHTLY = ("user_sequences", "candidates", "recommendations", "email_recommendations", "feed_recommendations")


def content(root: Path, table: str, day: date = RUN_DATE) -> pd.DataFrame:
    """The rows of a date, comparable, without what names the run."""
    frame = rows(root, table, run_date=str(day)).drop(columns=["run_id", "scored_at"], errors="ignore")
    keys = [key for key in ("user_id", "rank") if key in frame.columns]
    return comparable(frame.sort_values(keys, ignore_index=True)) if len(frame) else frame


def assert_same_night(root: Path, other: Path, day: date = RUN_DATE) -> None:
    for table in NIGHTLY:
        pd.testing.assert_frame_equal(content(root, table, day), content(other, table, day), check_exact=True)


def versions(root: Path) -> dict[str, int]:
    return {table: version(root, table) for table in NIGHTLY}


def last_run(root: Path, step: str, status: str = "done", day: date = RUN_DATE) -> pd.Series:
    runs = rows(root, "runs")
    found = runs[(runs["step"] == step) & (runs["status"] == status) & (runs["run_date"] == day)]
    return found.sort_values("run_order").iloc[-1]


def buy(spark: SparkSession, root: Path, when: str, *pairs: tuple[str, str]) -> None:
    """Append events to the log, as a shop does that goes on selling."""
    events = [(user, item, datetime.fromisoformat(when), None, "purchase") for user, item in pairs]
    schema = "user_id string, item_id string, event_time timestamp, rating double, event_type string"
    spark.createDataFrame(events, schema).write.format("delta").mode("append").save(
        str(root / "interactions")
    )


def an_unseen_item(root: Path, user: str) -> str:
    return str(rows(root, "recommendations", **DAY).query("user_id == @user")["item_id"].iloc[0])


def active_users(root: Path, day: date = RUN_DATE) -> list[str]:
    found = rows(root, "recommendations", run_date=str(day))
    return sorted(found[found["source"] == "llm"]["user_id"].unique())


# A step is skipped only if the tables hold its rows


def test_a_date_whose_rows_were_deleted_is_made_again(
    copy_of_shop: Path, shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    for table in NIGHTLY:
        spark.sql(f"DELETE FROM delta.`{copy_of_shop / table}` WHERE run_date = DATE'{RUN_DATE}'")
    run_nightly(new_context(copy_of_shop), RUN_DATE)
    assert_same_night(copy_of_shop, shop)
    before = versions(copy_of_shop)
    run_nightly(new_context(copy_of_shop), RUN_DATE)
    assert versions(copy_of_shop) == before, "now they are believed"
    user = active_users(copy_of_shop)[0]
    spark.sql(
        f"UPDATE delta.`{copy_of_shop / 'recommendations'}` SET score = score + 1 WHERE user_id = '{user}'"
    )
    run_nightly(new_context(copy_of_shop), RUN_DATE)
    assert_same_night(copy_of_shop, shop)


def test_force_repeats_a_night_that_is_there(copy_of_shop: Path, shop: Path, new_context: NewContext) -> None:
    before = versions(copy_of_shop)
    run_nightly(asked(new_context(copy_of_shop), force=True), RUN_DATE)
    assert all(versions(copy_of_shop)[table] == before[table] + 1 for table in NIGHTLY)
    assert_same_night(copy_of_shop, shop)


# A rerun reads pinned versions


def test_appends_and_optimize_restart_nothing_and_refresh_reads_anew(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    user = active_users(copy_of_shop)[0]
    item = an_unseen_item(copy_of_shop, user)
    before = versions(copy_of_shop)
    buy(spark, copy_of_shop, "2026-06-01 08:00:00", (user, item))
    buy(spark, copy_of_shop, "2026-05-31 23:00:00", (user, item))
    spark.sql(f"OPTIMIZE delta.`{copy_of_shop / 'interactions'}`")
    spark.sql(f"OPTIMIZE delta.`{copy_of_shop / 'recommendations'}`")
    before["recommendations"] = version(copy_of_shop, "recommendations")
    run_nightly(new_context(copy_of_shop), RUN_DATE)
    assert versions(copy_of_shop) == before
    run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    history = rows(copy_of_shop, "user_sequences", **DAY).set_index("user_id")["item_ids"][user]
    assert list(history)[-1] == item
    assert item not in set(rows(copy_of_shop, "recommendations", **DAY).query("user_id == @user")["item_id"])


def test_a_retry_goes_on_with_the_versions_of_the_run_that_failed(
    copy_of_shop: Path,
    new_context: NewContext,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(night: Night) -> None:
        raise TableError("recommendations: a hand slipped")

    with monkeypatch.context() as patched:
        patched.setattr(nightly, "run_score", fail)
        with pytest.raises(TableError, match="slipped"):
            run_nightly(new_context(copy_of_shop), NEXT)
    pinned = dict(last_run(copy_of_shop, "sequences", day=NEXT)["input_versions"])
    before = version(copy_of_shop, "candidates")
    user = active_users(copy_of_shop)[0]
    buy(spark, copy_of_shop, "2026-06-01 08:00:00", (user, an_unseen_item(copy_of_shop, user)))
    run_nightly(new_context(copy_of_shop), NEXT)
    assert version(copy_of_shop, "candidates") == before
    assert dict(last_run(copy_of_shop, "score", day=NEXT)["input_versions"]) == pinned
    assert len(rows(copy_of_shop, "feed_recommendations", run_date=str(NEXT)))


def test_a_killed_training_goes_on_whatever_was_appended_since(
    copy_of_shop: Path,
    new_context: NewContext,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders, real = [], train.train_bundle

    def killed(work: Work) -> Any:
        folders.append(work.folder)
        if len(folders) == 1:
            raise KeyboardInterrupt
        return real(work)

    monkeypatch.setattr(train, "train_bundle", killed)
    day = TRAINED_BEFORE - timedelta(days=1)
    with pytest.raises(KeyboardInterrupt):
        run_train(Night(new_context(copy_of_shop), day))
    buy(spark, copy_of_shop, "2026-05-20 08:00:00", (active_users(copy_of_shop)[0], "nothing"))
    bundle_id = run_train(Night(new_context(copy_of_shop), day))
    assert folders[0] == folders[1], "the folder of the checkpoints is another one"
    assert not folders[0].parent.exists(), "what nobody goes on from is left in the cache"
    assert run_train(Night(new_context(copy_of_shop), day)) == bundle_id
    assert len(folders) == 2


# After VACUUM


def vacuum(root: Path, table: str) -> None:
    """Delete what is not in the newest version, as VACUUM does after its retention."""
    DeltaTable(str(root / table)).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


def test_a_vacuumed_version_is_told_by_name_with_what_to_do(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    spark.sql(f"OPTIMIZE delta.`{copy_of_shop / 'interactions'}`")
    spark.sql(f"DELETE FROM delta.`{copy_of_shop / 'interactions'}` WHERE event_type = 'nothing'")
    buy(spark, copy_of_shop, "2026-05-31 08:00:00", ("someone", "nothing"))
    spark.sql(f"OPTIMIZE delta.`{copy_of_shop / 'interactions'}`")
    vacuum(copy_of_shop, "interactions")
    with pytest.raises(TableError, match=r"^interactions: .*vacuumed.*--refresh") as error:
        run_nightly(asked(new_context(copy_of_shop), force=True), RUN_DATE)
    assert "\n" not in str(error.value)
    assert len(content(copy_of_shop, "feed_recommendations"))
    run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    read = dict(last_run(copy_of_shop, "sequences")["input_versions"])
    assert read["interactions"] == version(copy_of_shop, "interactions")


# Differences between a backfill and a night


def test_settings_that_the_bundle_was_not_trained_with_are_refused_by_name(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    before = versions(copy_of_shop)
    with pytest.raises(ConfigError, match=r"sequences.max_history: 7, but bundle .* trained with 50"):
        run_nightly(new_context(copy_of_shop, "sequences.max_history=7"), RUN_DATE)
    assert versions(copy_of_shop) == before


def test_a_night_of_a_past_date_sees_the_catalogue_of_its_date(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    items = copy_of_shop / "items"
    noon = datetime.combine(RUN_DATE - timedelta(days=1), datetime.min.time(), timezone.utc).timestamp()
    for table in ("items", "users"):
        for commit in (copy_of_shop / table / "_delta_log").glob("*.json"):
            os.utime(commit, (noon, noon))
    spark.catalog.clearCache()
    titles = rows(copy_of_shop, "items").set_index("item_id")["title"]
    mailed = content(copy_of_shop, "email_recommendations")
    shown = next(iter(rows(copy_of_shop, "email_recommendations", **DAY)["slots"].iloc[0]))["item_id"]
    spark.sql(f"INSERT INTO delta.`{items}` (item_id, title, available) VALUES ('NEW', 'A new tent', true)")
    spark.sql(f"UPDATE delta.`{items}` SET title = 'Something else' WHERE item_id = '{shown}'")
    lines: list[str] = []
    context = new_context(copy_of_shop)
    context.report.write = lines.append
    run_nightly(asked(context, refresh=True, force=True), RUN_DATE)
    assert not any("warning" in line for line in lines)
    pd.testing.assert_frame_equal(content(copy_of_shop, "email_recommendations"), mailed)
    assert titles[shown] != "Something else"
    candidates = rows(copy_of_shop, "candidates", **DAY)["item_ids"]
    assert "NEW" not in {item for items in candidates for item in items}


def test_a_history_that_does_not_reach_back_is_warned_of_once(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    lines: list[str] = []
    context = new_context(copy_of_shop)
    context.report.write = lines.append
    run_nightly(asked(context, refresh=True), RUN_DATE)
    warnings = [line for line in lines if line.startswith("warning: items")]
    assert warnings == [
        "warning: items: its history does not reach back to a past run date; it is read as it stands now"
    ]


# Gates


def test_a_catalogue_that_is_unavailable_publishes_nothing_and_an_override_is_recorded(
    copy_of_shop: Path, shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    spark.sql(f"UPDATE delta.`{copy_of_shop / 'items'}` SET available = false")
    with pytest.raises(GateError, match=r"gates.max_unservable_share: 169 of 169 .* 1 where at most 0.05"):
        run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    for table in ("recommendations", "email_recommendations", "feed_recommendations"):
        pd.testing.assert_frame_equal(content(copy_of_shop, table), content(shop, table))
    failed = last_run(copy_of_shop, "score", "failed")
    assert dict(failed["gates"])["max_unservable_share"] == 1.0
    assert dict(failed["counts"])["unservable_no_item_available"] == 169
    override = frozenset({"max_unservable_share"})
    run_nightly(asked(new_context(copy_of_shop), override=override), RUN_DATE)
    assert list(last_run(copy_of_shop, "score")["overridden"]) == ["max_unservable_share"]
    assert not len(content(copy_of_shop, "recommendations"))


def test_items_that_vanish_between_scoring_and_publishing_stop_the_publishing(
    copy_of_shop: Path, shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    spark.sql(f"UPDATE delta.`{copy_of_shop / 'items'}` SET available = false")
    night = Night(asked(new_context(copy_of_shop), force=True), RUN_DATE).with_new_run()
    with pytest.raises(GateError, match="max_unpublished_share"):
        run_publish(night)
    for table in ("email_recommendations", "feed_recommendations"):
        pd.testing.assert_frame_equal(content(copy_of_shop, table), content(shop, table))


def test_every_rule_is_measured_before_the_table_that_it_guards(
    copy_of_shop: Path, new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {name: replace(rule, measure=lambda _: Measured(9, "broken")) for name, rule in RULES.items()}
    monkeypatch.setattr(registry, "RULES", broken)
    context = new_context(copy_of_shop)
    overridden: list[str] = []
    for step, table in (("score", "recommendations"), ("publish", "email_recommendations")):
        with pytest.raises(GateError):
            run_nightly(asked(context, override=frozenset(overridden)), NEXT)
        assert not len(content(copy_of_shop, table, NEXT))
        found = list(last_run(copy_of_shop, step, "failed", NEXT)["broken"])
        assert found == [rule.name for rule in RULES.values() if rule.guards == table]
        overridden += found
    assert overridden == list(RULES)
    run_nightly(asked(context, override=frozenset(overridden)), NEXT)
    assert all(len(content(copy_of_shop, table, NEXT)) for table in NIGHTLY)


# Fencing: the same date twice


def test_a_run_that_was_superseded_stops_and_names_the_winner(
    copy_of_shop: Path, shop: Path, new_context: NewContext
) -> None:
    zombie = Night(asked(new_context(copy_of_shop), force=True), RUN_DATE).with_new_run()
    winner = Night(asked(new_context(copy_of_shop), force=True), RUN_DATE).with_new_run()
    run_score(winner)
    before, staged = versions(copy_of_shop), copy_of_shop / "_staging" / str(RUN_DATE)
    with pytest.raises(SupersededError, match=winner.context.run_id):
        run_score(zombie)
    with pytest.raises(SupersededError, match=winner.context.run_id):
        run_publish(zombie)
    assert versions(copy_of_shop) == before
    assert staged.exists(), "the winner may still be reading what is staged"
    run_publish(winner)
    assert not staged.exists()
    assert_same_night(copy_of_shop, shop)


def test_a_run_on_a_machine_whose_clock_is_behind_is_still_the_newer_one(
    copy_of_shop: Path, new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Night(asked(new_context(copy_of_shop), force=True), RUN_DATE).with_new_run()
    run_publish(first)
    monkeypatch.setattr("allmrec.runtime.context.time.time_ns", lambda: 1)
    second = Night(asked(new_context(copy_of_shop), force=True), RUN_DATE).with_new_run()
    assert second.context.order > first.context.order
    run_publish(second)


# Resume inside scoring


def test_a_killed_scoring_goes_on_after_its_last_finished_wave(
    copy_of_shop: Path,
    shop: Path,
    new_context: NewContext,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spark.sql(f"DELETE FROM delta.`{copy_of_shop / 'recommendations'}`")
    monkeypatch.setattr("allmrec.night.waves.CHUNKS_PER_SLOT", 1)
    pieces: list[str] = []
    add = Staging.add

    def add_two(self: Staging, frame: Any, piece: str) -> None:
        if len(pieces) == 2:
            raise KeyboardInterrupt
        pieces.append(piece)
        add(self, frame, piece)

    small = "scoring.chunk_users=4"
    with monkeypatch.context() as patched:
        patched.setattr(Staging, "add", add_two)
        with pytest.raises(KeyboardInterrupt):
            run_nightly(new_context(copy_of_shop, small), RUN_DATE)
    assert not len(content(copy_of_shop, "recommendations"))
    staged = list((copy_of_shop / "_staging" / str(RUN_DATE)).iterdir())
    assert len(staged) == 1
    lines: list[str] = []
    context = new_context(copy_of_shop, small)
    context.report.write = lines.append
    run_nightly(asked(context), RUN_DATE)
    [line] = [line for line in lines if "are staged already" in line and "chunks" in line]
    num_chunks = -(-len(active_users(shop)) // 4)
    assert f"4 of {num_chunks} chunks of users with the LLM" in line
    assert not staged[0].exists()
    one, two = content(copy_of_shop, "recommendations"), content(shop, "recommendations")
    # Other users in a chunk are another rounding: the shop's night had larger ones. Scores are sums of
    # z-scores and may lie at 0: a difference of 2e-7 was seen at .00126.
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-6)
    run_ids = rows(copy_of_shop, "recommendations", **DAY).groupby("user_id")["run_id"].nunique()
    assert (run_ids == 1).all(), "a list is one run's"


# Incremental nights


def test_a_night_keeps_the_lists_for_which_nothing_changed(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    changed = active_users(copy_of_shop)[:3]
    buy(
        spark,
        copy_of_shop,
        "2026-06-01 12:00:00",
        *((user, an_unseen_item(copy_of_shop, user)) for user in changed),
    )
    first = rows(copy_of_shop, "recommendations", **DAY)
    run_nightly(new_context(copy_of_shop), NEXT)
    second = rows(copy_of_shop, "recommendations", run_date=str(NEXT))
    kept = second[second["carried_from"].notna()]
    assert set(changed).isdisjoint(kept["user_id"])
    assert set(kept["carried_from"]) == {RUN_DATE}
    assert kept["user_id"].nunique() > 150
    counts = dict(last_run(copy_of_shop, "score", day=NEXT)["counts"])
    assert counts["carried"] == kept["user_id"].nunique()
    assert counts["scored_llm"] == len(changed), "the LLM read those who changed, and nobody else"
    same = [column for column in first.columns if column not in ("run_date", "carried_from")]
    old = first[first["user_id"].isin(kept["user_id"])].sort_values(["user_id", "rank"], ignore_index=True)
    kept = kept.sort_values(["user_id", "rank"], ignore_index=True)
    pd.testing.assert_frame_equal(comparable(kept[same]), comparable(old[same]))
    run_nightly(asked(new_context(copy_of_shop), full=True), NEXT)
    full = rows(copy_of_shop, "recommendations", run_date=str(NEXT))
    assert full["carried_from"].isna().all()
    before = versions(copy_of_shop)
    run_nightly(new_context(copy_of_shop), NEXT)
    assert versions(copy_of_shop) == before, "a full night satisfies whoever asks for less"
    lists = ["user_id", "rank", "item_id"]
    by_llm = full[full["source"] == "llm"]["user_id"]
    one, two = (
        frame[frame["user_id"].isin(by_llm)][lists].sort_values(lists[:2], ignore_index=True)
        for frame in (full, second)
    )
    pd.testing.assert_frame_equal(one, two)


# Deadline


def test_who_is_late_gets_the_order_without_the_llm_and_the_llm_another_night(
    copy_of_shop: Path, shop: Path, new_context: NewContext
) -> None:
    readers = active_users(shop)
    run_nightly(asked(new_context(copy_of_shop), max_minutes=0, full=True, force=True), RUN_DATE)
    late = rows(copy_of_shop, "recommendations", **DAY)
    of_asked = late[late["user_id"].isin(readers)]
    assert set(of_asked["source"]) == {"cf"}
    assert set(of_asked["fallback_reason"]) == {"deadline"}
    assert of_asked["llm_logprob"].isna().all()
    counts = dict(last_run(copy_of_shop, "score")["counts"])
    assert counts["fallback_deadline"] == len(readers)
    assert len(content(copy_of_shop, "feed_recommendations")) == late["user_id"].nunique()
    assert list((copy_of_shop / "_staging").glob("*/*")) == []
    run_nightly(new_context(copy_of_shop), NEXT)
    still_active = set(active_users(copy_of_shop, NEXT))
    assert still_active
    assert still_active <= set(readers), "those of yesterday's late ones who are active are read tonight"


@pytest.mark.parametrize(("day", "applies"), [(0, True), (1, True), (-1, False)])
def test_a_deadline_is_on_the_run_date_and_none_for_later_runs_of_it(
    shop: Path, new_context: NewContext, day: int, applies: bool
) -> None:
    from allmrec.night.waves import deadline_of

    context = new_context(shop, "scoring.deadline=05:30")
    run_date = context.started_at.date() + timedelta(days=day)
    end = datetime.combine(run_date, datetime.min.time(), timezone.utc) + timedelta(hours=5, minutes=30)
    assert deadline_of(Night(context, run_date)) == (end if applies else None)


# Evaluations


def test_evaluations_of_two_bundles_stand_side_by_side_and_need_no_old_version_of_the_log(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    evaluation = "training.purpose=evaluation"
    first = run_train(Night(new_context(copy_of_shop, evaluation), TRAINED_BEFORE))
    second = run_train(Night(new_context(copy_of_shop, evaluation, "seed=5"), TRAINED_BEFORE))
    assert first != second
    buy(spark, copy_of_shop, "2026-05-31 08:00:00", ("someone", "nothing"))
    spark.sql(f"OPTIMIZE delta.`{copy_of_shop / 'interactions'}`")
    vacuum(copy_of_shop, "interactions")
    for bundle_id in (first, second):
        settings = (f"bundle.id={bundle_id}", "evaluation.protocols=[uniform]")
        run_evaluate(new_context(copy_of_shop, *settings), None)
    for table in ("evaluation_predictions", "evaluation_results"):
        assert set(rows(copy_of_shop, table)["bundle_id"]) == {first, second}
    shutil.rmtree(copy_of_shop / "_snapshots")
    with pytest.raises(TableError, match=r"^interactions: .*vacuumed"):
        run_evaluate(new_context(copy_of_shop, f"bundle.id={first}"), None)
    assert set(rows(copy_of_shop, "evaluation_results")["bundle_id"]) == {first, second}


def test_two_trainings_of_the_same_at_once_are_one(copy_of_shop: Path, new_context: NewContext) -> None:
    from allmrec.errors import PassingError

    folder = copy_of_shop.parent / "cache" / "training" / "f"
    with (
        train.alone_in(folder, "run-1"),
        pytest.raises(PassingError, match="run run-1 trains the same"),
        train.alone_in(folder, "run-2"),
    ):
        pass
    with train.alone_in(folder, "run-3"):
        assert (folder / "lock").read_text() == "run-3"

"""Gates: each rule measures what it says, a broken one names both numbers, an overridden one is recorded."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from datetime import date, datetime, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyspark.sql import DataFrame, SparkSession

from allmrec.config import GatesConfig, load
from allmrec.errors import GateError
from allmrec.night import gates
from allmrec.night.gates import RULES, FilledSlots, Measured, ScoredNight, registry
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.night import Night, Step, StepRun
from allmrec.runtime.runs import MAX_MESSAGE, RunRow
from allmrec.spark.cached_frames import CachedFrames
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES
from allmrec.views.night_records import NightRecord

DAY = date(2026, 6, 1)


def lists(spark: SparkSession, **scores: list[float]) -> DataFrame:
    """Lists of recommendations, one item after another from rank 1, by user."""
    rows = [
        (user, rank, f"item-{rank}", score)
        for user, of_user in scores.items()
        for rank, score in enumerate(of_user, start=1)
    ]
    return spark.createDataFrame(rows, "user_id string, rank int, item_id string, score double")


def users(spark: SparkSession, *names: str) -> DataFrame:
    return spark.createDataFrame([(name,) for name in names], "user_id string")


def night(spark: SparkSession, rows: DataFrame, *servable: str, **others: Any) -> ScoredNight:
    """A night with these rows of `recommendations`, and nothing else that is wrong."""
    given: dict[str, Any] = {
        "servable": users(spark, *servable),
        "available": rows.select("item_id").distinct(),
        "seen": None,
        "num_slots": 2,
        "counts": {"users_in": len(servable), "unservable": 0},
        "counts_of_sequences": {"good_rows": 1, "rejected_rows": 0},
        "last_shape": None,
    }
    return ScoredNight(rows=rows, **given | others)


def values(night: ScoredNight, *names: str) -> dict[str, float]:
    measured = {name: RULES[name].measure(night) for name in names}
    return {name: one.value for name, one in measured.items() if one is not None}


def context(*overrides: str, override: frozenset[str] = frozenset()) -> Context:
    config, nothing = load([], overrides), cast(Any, None)
    return Context(nothing, config, Report(), "r", nothing, CachedFrames(), RunOptions(override=override))


def checked(
    measured: dict[str, Measured], *overrides: str, override: frozenset[str] = frozenset()
) -> StepRun:
    night = Night(context(*overrides, override=override), DAY)
    run = StepRun(night, Report(), CachedFrames())
    gates.check(run, measured)
    return run


LISTS = ("max_lost_users", "max_short_share", "max_disordered_lists")
CHANGES = ("max_users_change", "max_coverage_drop", "max_top1_rise")


def test_lost_and_surplus_users_are_counted_by_name_though_the_totals_agree(spark: SparkSession) -> None:
    found = values(night(spark, lists(spark, a=[2.0, 1.0], x=[2.0, 1.0]), "a", "b"), *LISTS)
    assert found == {"max_lost_users": 2, "max_short_share": 0.0, "max_disordered_lists": 0}


def test_short_lists_and_lists_out_of_order_are_counted(spark: SparkSession) -> None:
    rows = lists(spark, a=[3.0, 2.0, 2.0], b=[1.0, 2.0], c=[1.0, math.nan], d=[1.0])
    found = values(night(spark, rows, "a", "b", "c", "d"), *LISTS)
    assert found == {"max_lost_users": 0, "max_short_share": 0.25, "max_disordered_lists": 2}


def test_scores_may_rise_where_rerankers_placed_the_items_and_gaps_and_nans_are_still_counted(
    spark: SparkSession,
) -> None:
    rows = lists(spark, a=[1.0, 2.0], b=[2.0, 1.0], c=[1.0, math.nan], d=[1.0, 2.0, 3.0])
    rows = rows.where("user_id != 'd' OR rank != 2")
    reranked = night(spark, rows, "a", "b", "c", "d", is_reranked=True)
    assert values(reranked, "max_disordered_lists") == {"max_disordered_lists": 2}
    by_score = night(spark, rows, "a", "b", "c", "d")
    assert values(by_score, "max_disordered_lists") == {"max_disordered_lists": 3}


def test_a_list_that_is_there_twice_is_out_of_order(spark: SparkSession) -> None:
    rows = lists(spark, a=[2.0, 1.0])
    found = values(night(spark, rows.unionAll(rows), "a"), *LISTS)
    assert found["max_disordered_lists"] == 1


def test_unavailable_and_seen_items_are_counted(spark: SparkSession) -> None:
    rows = lists(spark, a=[2.0, 1.0], b=[2.0, 1.0])
    available = spark.createDataFrame([("item-1",)], "item_id string")
    seen = spark.createDataFrame(
        [("a", ["item-1", "item-9"]), ("c", ["item-1"])], "user_id string, seen_item_ids array<string>"
    )
    for given, number in ((seen, 3), (None, 2)):
        found = values(night(spark, rows, "a", "b", available=available, seen=given), "max_forbidden_items")
        assert found == {"max_forbidden_items": number}


def test_a_night_is_compared_with_the_last_published_one(spark: SparkSession) -> None:
    rows = lists(spark, a=[2.0, 1.0], b=[2.0, 1.0], c=[2.0])
    first = night(spark, rows, "a", "b", "c")
    assert first.shape == {"users": 3.0, "coverage": 2.0, "top1_share": 1.0}
    assert values(first, *CHANGES) == {}
    before = {"users": 2.0, "coverage": 8.0, "top1_share": 0.4}
    assert values(night(spark, rows, "a", "b", "c", last_shape=before), *CHANGES) == {
        "max_users_change": 0.5,
        "max_coverage_drop": 0.75,
        "max_top1_rise": 0.6,
    }


def test_every_setting_has_a_rule_and_every_rule_has_a_setting_an_advice_and_a_table() -> None:
    assert sorted(RULES) == sorted(GatesConfig.model_fields)
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.advice
        assert rule.guards in TABLES


class GatesOfThisTest(GatesConfig):
    """The section with one line more."""

    max_users: int | None = 1


def test_a_new_rule_stops_a_night_by_its_name_and_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RULES", {})

    @gates.rule("max_users", advice="send some of them away", guards="email_recommendations")
    def served_users(slots: FilledSlots) -> Measured:
        return Measured(slots.num_served, f"{slots.num_served} users")

    config = load([]).model_copy(update={"gates": GatesOfThisTest()})
    run = StepRun(Night(replace(context(), config=config), DAY), Report(), CachedFrames())
    assert gates.measure("recommendations", None) == {}
    measured = gates.measure("email_recommendations", FilledSlots(num_served=2, num_published=2))
    told = r"gates\.max_users: 2 users, 2 where at most 1 is allowed \(send some of them away\);"
    with pytest.raises(GateError, match=told):
        gates.check(run, measured)
    assert run.gates == {"max_users": 2.0}
    assert run.broken == ["max_users"]
    passed = Night(replace(context(override=frozenset({"max_users"})), config=config), DAY)
    gates.check(StepRun(passed, Report(), CachedFrames()), measured)
    with pytest.raises(ValueError, match="max_users"):
        gates.rule("max_users", advice="none", guards="recommendations")(served_users)


@pytest.mark.parametrize("rule", GatesConfig.model_fields)
def test_a_broken_rule_names_itself_both_numbers_and_what_to_do(rule: str) -> None:
    limit = getattr(GatesConfig(), rule)
    with pytest.raises(GateError) as error:
        checked({rule: Measured(limit + 1, "3 of 4 users")})
    text = str(error.value)
    for part in (
        f"gates.{rule}",
        "3 of 4 users",
        f"{limit + 1:.4g}",
        f"at most {limit:.4g}",
        f"--override {rule}",
    ):
        assert part in text
    assert RULES[rule].advice in text
    assert "\n" not in text


def test_a_rule_is_kept_at_its_limit_off_by_null_and_broken_once_by_an_override() -> None:
    broken = {"max_short_share": Measured(0.5, "half"), "max_lost_users": Measured(0, "nobody")}
    assert checked(broken, "gates.max_short_share=0.5").overridden == []
    assert checked(broken, "gates.max_short_share=null").overridden == []
    run = checked(broken, override=frozenset({"max_short_share"}))
    assert run.overridden == ["max_short_share"]
    assert run.gates == {"max_short_share": 0.5, "max_lost_users": 0.0}
    with pytest.raises(GateError, match="max_short_share"):
        checked(broken, override=frozenset({"max_lost_users"}))


def test_a_run_that_fails_by_rules_records_them_whatever_its_error_says() -> None:
    measured = {rule: Measured(9e9, "words " * 200) for rule in GatesConfig.model_fields}
    rows: list[dict[str, Any]] = []
    tables = SimpleNamespace(
        append=lambda name, row: rows.append(dict(row)), marked_commits=lambda mark: nullcontext()
    )
    for override in ("max_lost_users", "max_top1_rise"):
        night = Night(replace(context(override=frozenset({override})), tables=cast(Tables, tables)), DAY)
        with pytest.raises(GateError), Step(night, "score", "f").recorded({}, {}) as run:
            gates.check(run, measured)
        failed = rows[-1]
        assert len(failed["message"]) == MAX_MESSAGE, "so long that the last rules are cut off"
        assert failed["overridden"] == [override]
        expected = [rule for rule in GatesConfig.model_fields if rule != override]
        assert failed["broken"] == expected
        assert NightRecord.of(DAY, [RunRow(**failed)]).broken == expected


def test_a_row_of_an_older_version_tells_its_rules_by_its_message() -> None:
    message = "GateError: night of 2026-06-01: gates.max_lost_users: 1 lost; gates.max_top1_rise: more"
    began = datetime(2026, 6, 1, tzinfo=timezone.utc)
    for text, broken, expected in (
        (message, None, ["max_lost_users", "max_top1_rise"]),
        (message, ["max_users_change"], ["max_users_change"]),
        ("InputError: see gates.max_lost_users: it is 0", None, []),
        (None, None, []),
        ("InputError: no user", [], []),
    ):
        row = RunRow("r", "score", "failed", began, DAY, message=text, broken=broken)
        assert NightRecord.of(DAY, [row]).broken == expected

"""The gates: rules of the section `gates` that a night must keep before anything of it is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from allmrec.errors import GateError
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night, StepRun

FAILURES = ("prompt_too_long", "out_of_memory", "non_finite_score", "no_candidate")
"""Fallback reasons that say that the LLM failed, not that it was not meant to be asked, or came too late."""
ADVICE = {
    "max_lost_users": "run the step again with --force",
    "max_unservable_share": "look at items.available and at what users have seen",
    "max_fallback_share": "look at the fallback_reason of the users in question, and at the LLM's memory",
    "max_short_share": "look at how many items are available, and at candidates.num_candidates",
    "max_disordered_lists": "look at the scores; retrain where the bundle gives NaN",
    "max_forbidden_items": "run the night again with --force, so that candidates are retrieved anew",
    "max_rejected_share": "look at rejected_rows, by reason: log and catalogue may not belong together",
    "max_users_change": "look at whether the log is whole",
    "max_coverage_drop": "look at items.available and at the bundle",
    "max_top1_rise": "look at the bundle: it may have been trained on too little",
    "max_unpublished_share": "look at items.available",
}
"""What to do about a broken rule, before it is overridden."""


@dataclass(frozen=True)
class Measured:
    """What a rule measured, and in words of what."""

    rule: str
    """The key in the section `gates`."""
    value: float
    words: str
    """What the value is, with the numbers behind it."""


def check(context: Context, run: StepRun, run_date: date, measured: list[Measured]) -> None:
    """Note what was measured in the step's record, and raise GateError where a rule is broken.

    A rule that is null is not checked; one that `--override` names is noted and passed.
    """
    run.gates.update({one.rule: float(one.value) for one in measured})
    limits = context.config.gates.model_dump()
    broken = [one for one in measured if limits[one.rule] is not None and one.value > limits[one.rule]]
    run.overridden += [one.rule for one in broken if one.rule in context.options.override]
    for rule in run.overridden:
        run.report(f"gate {rule}: broken, and overridden")
    failed = [one for one in broken if one.rule not in context.options.override]
    run.broken += [one.rule for one in failed]
    if failed:
        rules = "; ".join(
            f"gates.{one.rule}: {one.words}, {one.value:.4g} where at most {limits[one.rule]:.4g} is allowed "
            f"({ADVICE[one.rule]})"
            for one in failed
        )
        options = " ".join(f"--override {one.rule}" for one in failed)
        raise GateError(
            f"night of {run_date}: {rules}; nothing of it was published; to publish all the same: {options}"
        )


def share(part: float, whole: float) -> float:
    """Return part / whole; 0 where there is nothing."""
    return part / whole if whole else 0.0


def measured_lists(rows: DataFrame, users: DataFrame, top_k: int) -> list[Measured]:
    """Return what the rules on the lists by themselves measure: rows of `recommendations`, all users' ids.

    `users` (user_id) are those who must have a list.
    """
    by_rank = Window.partitionBy("user_id").orderBy("rank")
    rises = F.isnan("score") | (F.col("score") > F.lag("score").over(by_rank))
    gap = F.col("rank") != F.row_number().over(by_rank)
    marked = rows.withColumn("wrong", (F.coalesce(rises, F.lit(False)) | gap).cast("int"))
    lists = marked.groupBy("user_id").agg(F.count(F.lit(1)).alias("size"), F.max("wrong").alias("wrong"))
    both = users.withColumn("expected", F.lit(True)).join(lists, "user_id", "full")
    numbers = _first(
        both,
        num_lists=F.count("size"),
        lost=F.count_if(F.col("size").isNull() | F.col("expected").isNull()),
        short=F.count_if(F.col("size") < top_k),
        wrong=F.coalesce(F.sum("wrong"), F.lit(0)),
    )
    num_lists = numbers["num_lists"]
    return [
        Measured("max_lost_users", numbers["lost"], "users lost, or there twice"),
        Measured(
            "max_short_share",
            share(numbers["short"], num_lists),
            f"{numbers['short']:,} of {num_lists:,} users have fewer than {top_k} items",
        ),
        Measured("max_disordered_lists", numbers["wrong"], "lists that are not in order"),
    ]


def measured_forbidden(rows: DataFrame, available: DataFrame, seen: DataFrame | None) -> Measured:
    """Return what the rule on items measures: `available` has item_id, `seen` user_id and seen_item_ids."""
    pairs = rows.select("user_id", "item_id")
    forbidden = pairs.join(available, "item_id", "left_anti").count()
    if seen is not None:
        both = pairs.join(seen, "user_id", "inner")
        forbidden += both.where(F.array_contains("seen_item_ids", F.col("item_id"))).count()
    return Measured("max_forbidden_items", forbidden, "recommendations of unavailable or seen items")


def shape_of(rows: DataFrame) -> dict[str, float]:
    """Return what is compared from night to night: users, different items, share of the first first item."""
    first = rows.where("rank = 1").groupBy("item_id").count()
    numbers = _first(
        first, top=F.coalesce(F.max("count"), F.lit(0)), users=F.coalesce(F.sum("count"), F.lit(0))
    )
    num_users = numbers["users"]
    coverage = rows.select("item_id").distinct().count()
    return {
        "users": float(num_users),
        "coverage": float(coverage),
        "top1_share": share(numbers["top"], num_users),
    }


def measured_change(shape: Mapping[str, float], before: Mapping[str, float] | None) -> list[Measured]:
    """Return what the rules on the difference from the last published night measure; none without one."""
    if not before or not before.get("users"):
        return []
    users, coverage = shape["users"], shape["coverage"]
    return [
        Measured(
            "max_users_change",
            abs(users / before["users"] - 1),
            f"{users:,.0f} users after {before['users']:,.0f}",
        ),
        Measured(
            "max_coverage_drop",
            max(0.0, 1 - share(coverage, before["coverage"])),
            f"{coverage:,.0f} different items after {before['coverage']:,.0f}",
        ),
        Measured(
            "max_top1_rise",
            max(0.0, shape["top1_share"] - before["top1_share"]),
            f"the most frequent first item has {shape['top1_share']:.1%} of the users after "
            f"{before['top1_share']:.1%}",
        ),
    ]


def last_published(night: Night) -> Mapping[str, float] | None:
    """Return the figures of the last night before this one that was published, None where there is none."""
    before = night.before("publish")
    row = before.latest("publish", "done") if before else None
    return row.figures if row else None


def _first(frame: DataFrame, **aggregates: Column) -> Mapping[str, float]:
    """Return the aggregates of a frame by name."""
    row = frame.agg(*(column.alias(name) for name, column in aggregates.items())).first()
    assert row is not None
    return row.asDict()

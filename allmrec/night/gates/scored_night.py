"""What the rules on `recommendations` measure: a night's lists, and the numbers that several rules need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from allmrec.night.gates.registry import share
from allmrec.runtime.night import Night


@dataclass(frozen=True)
class ScoredNight:
    """A night's lists, and what the steps before them counted."""

    rows: DataFrame
    """Rows of `recommendations`."""
    servable: DataFrame
    """(user_id) of those who must have a list."""
    available: DataFrame
    """(item_id) of those that may be recommended."""
    seen: DataFrame | None
    """(user_id, seen_item_ids); None where seen items may be recommended."""
    num_slots: int
    """Items that fill a feed and an e-mail: a list with fewer is short."""
    counts: Mapping[str, int]
    """What scoring counted."""
    counts_of_sequences: Mapping[str, int]
    """What the step `sequences` counted."""
    last_shape: Mapping[str, float] | None
    """`shape` of the last published night; None without one (`last_published`)."""
    is_reranked: bool = False
    """Whether re-rankers placed the items, so that a score may rise with the rank."""

    @cached_property
    def lists(self) -> Mapping[str, int]:
        """Numbers of lists: all (`num_lists`), `lost` or surplus, `short`, and out of order (`wrong`)."""
        by_rank = Window.partitionBy("user_id").orderBy("rank")
        wrong = F.isnan("score") | (F.col("rank") != F.row_number().over(by_rank))
        if not self.is_reranked:
            rises = F.col("score") > F.lag("score").over(by_rank)
            wrong = wrong | F.coalesce(rises, F.lit(False))
        marked = self.rows.withColumn("wrong", wrong.cast("int"))
        lists = marked.groupBy("user_id").agg(F.count(F.lit(1)).alias("size"), F.max("wrong").alias("wrong"))
        both = self.servable.withColumn("expected", F.lit(True)).join(lists, "user_id", "full")
        return _first(
            both,
            num_lists=F.count("size"),
            lost=F.count_if(F.col("size").isNull() | F.col("expected").isNull()),
            short=F.count_if(F.col("size") < self.num_slots),
            wrong=F.coalesce(F.sum("wrong"), F.lit(0)),
        )

    @cached_property
    def shape(self) -> dict[str, float]:
        """The figures that are compared between nights.

        These are the numbers of `users` and of distinct items among the best `num_slots` (`coverage`), and
        the share of the users who have the most frequent first item (`top1_share`).
        """
        first = self.rows.where("rank = 1").groupBy("item_id").count()
        numbers = _first(
            first, top=F.coalesce(F.max("count"), F.lit(0)), users=F.coalesce(F.sum("count"), F.lit(0))
        )
        coverage = self.rows.where(F.col("rank") <= self.num_slots).select("item_id").distinct().count()
        return {
            "users": float(numbers["users"]),
            "coverage": float(coverage),
            "top1_share": share(numbers["top"], numbers["users"]),
        }


def last_published(night: Night) -> Mapping[str, float] | None:
    """Return the shape of the last night published before this one; None without one, or without users."""
    before = night.before("publish")
    row = before.latest("publish", "done") if before else None
    return row.figures if row and row.figures.get("users") else None


def _first(frame: DataFrame, **aggregates: Column) -> Mapping[str, int]:
    """Return the aggregates of a frame by name."""
    row = frame.agg(*(column.alias(name) for name, column in aggregates.items())).first()
    assert row is not None
    return row.asDict()

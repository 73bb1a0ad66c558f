"""The k-core of the interactions: users and items with few interactions are left out, again and again until none are left."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def k_core(interactions: DataFrame, k: int) -> DataFrame:
    """Return the largest part of `interactions` in which every user and every item has at least `k`; all of it for k ≤ 1.

    Each round shuffles pairs of ids only. The result is unique: it does not depend on the order in which rows are dropped.
    """
    if k <= 1:
        return interactions
    pairs = (
        interactions.groupBy("user_id", "item_id")
        .agg(F.count(F.lit(1)).alias("n"))
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    left = pairs.count()
    while True:
        smaller = pairs
        for side in ("item_id", "user_id"):
            enough = (
                smaller.groupBy(side).agg(F.sum("n").alias("total")).where(F.col("total") >= k).select(side)
            )
            smaller = smaller.join(enough, side, "left_semi")
        # A checkpoint a round: the plan would double with each.
        smaller = smaller.localCheckpoint()
        pairs.unpersist()
        pairs, before, left = smaller, left, smaller.count()
        if left == before:
            return interactions.join(pairs.select("user_id", "item_id"), ["user_id", "item_id"], "left_semi")

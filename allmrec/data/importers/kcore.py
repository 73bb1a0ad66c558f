"""The k-core of the interactions: rounds that drop rare users and items."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def k_core(interactions: DataFrame, k: int) -> DataFrame:
    """Return the largest part whose users and items have `k` rows.

    For k ≤ 1 that is all of it. The result is unique: it does not depend on the order in which rows are
    dropped. Each round shuffles only pairs of ids.
    """
    if k <= 1:
        return interactions
    pairs = (
        interactions.groupBy("user_id", "item_id")
        .agg(F.count(F.lit(1)).alias("num_rows"))
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    num_pairs = pairs.count()
    while True:
        smaller = pairs
        for side in ("item_id", "user_id"):
            totals = smaller.groupBy(side).agg(F.sum("num_rows").alias("total"))
            smaller = smaller.join(totals.where(F.col("total") >= k).select(side), side, "left_semi")
        # One checkpoint per round, because the plan would double with each.
        smaller = smaller.localCheckpoint()
        pairs.unpersist()
        num_pairs_before = num_pairs
        num_pairs = smaller.count()
        pairs = smaller
        if num_pairs == num_pairs_before:
            return interactions.join(pairs.select("user_id", "item_id"), ["user_id", "item_id"], "left_semi")

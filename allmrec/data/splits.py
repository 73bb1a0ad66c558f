"""Which of a user's items train, which are held back, and for what, and which one is the test."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

ROLES = {"stage2": 0.6, "early_stop": 0.2, "blend": 0.2}
"""What held-back items are for, and the share of users of each role."""
_NUM_DRAWS = 1_000_000
"""How many different numbers `draw` returns."""


def split(sequences_full: DataFrame, purpose: str, share: float, seed: int) -> DataFrame:
    """Return one row per user: user_id, train_items array<string>, and held_back, role and test (strings).

    `sequences_full` is (user_id, item_ids oldest first, not truncated). `evaluation`: users with at least two
    items are tested on the last one. `share` of the users with at least two items besides hold back the last
    of those; a share of 0 trains on all but the tests, as published figures are measured. A held-back item
    has a role of `ROLES`, drawn from (seed, user_id). Where there is no such item held_back and test are
    null, and role is ''. Raises ValueError where `purpose` is neither.
    """
    if purpose not in ("evaluation", "serving"):
        raise ValueError(f"purpose {purpose!r}, expected serving or evaluation")
    size = F.size("item_ids")
    num_test = F.when(size >= 2, 1).otherwise(0) if purpose == "evaluation" else F.lit(0)
    is_drawn = draw(F.col("user_id"), seed, "held_back") < share
    num_held_back = F.when((size - num_test >= 2) & is_drawn, 1).otherwise(0)
    rows = sequences_full.select(
        "user_id",
        "item_ids",
        size.alias("size"),
        num_test.alias("num_test"),
        num_held_back.alias("num_held_back"),
    )
    return rows.select(
        "user_id",
        F.expr("slice(item_ids, 1, size - num_test - num_held_back)").alias("train_items"),
        F.expr("if(num_held_back = 1, get(item_ids, size - num_test - 1), NULL)").alias("held_back"),
        F.when(F.col("num_held_back") == 1, _role(F.col("user_id"), seed)).otherwise("").alias("role"),
        F.expr("if(num_test = 1, get(item_ids, size - 1), NULL)").alias("test"),
    )


def draw(user_id: Column, seed: int, purpose: str) -> Column:
    """Return a uniform number in [0, 1) that depends on (seed, purpose, user_id) alone."""
    hashed = F.xxhash64(F.lit(f"{seed}/{purpose}"), user_id)
    return F.pmod(hashed, F.lit(_NUM_DRAWS)) / F.lit(float(_NUM_DRAWS))


def _role(user_id: Column, seed: int) -> Column:
    """Return the role of `ROLES` that a user's held-back item has."""
    drawn = draw(user_id, seed, "role")
    return (
        F.when(drawn < ROLES["stage2"], "stage2")
        .when(drawn < ROLES["stage2"] + ROLES["early_stop"], "early_stop")
        .otherwise("blend")
    )

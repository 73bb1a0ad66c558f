"""The split of a user's items: trained, held back, tested."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

ROLES = {"stage2": 0.6, "early_stop": 0.2, "blend": 0.2}
"""Role of a held-back item → share of users."""
_NUM_DRAWS = 1_000_000
"""Number of different results of `draw`."""


def split(events: DataFrame, purpose: str, share: float, seed: int) -> DataFrame:
    """Return a user's train items, held-back event and tested event.

    `events` is a result of `ordered_events`. `evaluation`: users with at least two events are tested on the
    last one. `share` of the users with at least two further events hold back the last of those; a share of 0
    trains on all but the tests, as published figures are measured. A sequence has the items that it had right
    before the held-back or tested event, so that later events do not change it.

    | column | type | content |
    |---|---|---|
    | user_id | string | |
    | train_items | array<string> | the sequence before the held-back and the tested event, oldest first |
    | held_back, held_back_time | string, timestamp | the held-back event; null without one |
    | role | string | one of `ROLES`, drawn from (seed, user_id); '' without a held-back event |
    | history | array<string> | the sequence before the tested event; null without one |
    | test, test_time | string, timestamp | the tested event; null without one |

    Raises ValueError where `purpose` is unknown.
    """
    if purpose not in ("evaluation", "serving"):
        raise ValueError(f"purpose {purpose!r}, expected serving or evaluation")
    size = F.size("events")
    num_test = F.when(size >= 2, 1).otherwise(0) if purpose == "evaluation" else F.lit(0)
    rows = events.select("user_id", "events", (size - num_test).alias("num_before_test"))
    is_drawn = draw(F.col("user_id"), seed, "held_back") < share
    is_held_back = is_drawn & (F.col("num_before_test") >= 2)
    rows = rows.withColumn("num_train", F.col("num_before_test") - F.when(is_held_back, 1).otherwise(0))
    is_tested = F.col("num_before_test") < size
    is_held_back = F.col("num_train") < F.col("num_before_test")
    held_back = F.when(is_held_back, F.get("events", F.col("num_train")))
    test = F.when(is_tested, F.get("events", F.col("num_before_test")))
    return rows.select(
        "user_id",
        _sequence(F.col("num_train")).alias("train_items"),
        held_back["item_id"].alias("held_back"),
        held_back["event_time"].alias("held_back_time"),
        F.when(is_held_back, _role(F.col("user_id"), seed)).otherwise("").alias("role"),
        F.when(is_tested, _sequence(F.col("num_before_test"))).alias("history"),
        test["item_id"].alias("test"),
        test["event_time"].alias("test_time"),
    )


def _sequence(num_events: Column) -> Column:
    """Return the items of a sequence after the first `num_events` of `events`."""
    first = F.slice("events", F.lit(1), num_events)
    kept = F.filter(first, lambda event: F.coalesce(event["replaced_at"] > num_events, F.lit(True)))
    return F.transform(kept, lambda event: event["item_id"])


def draw(user_id: Column, seed: int, purpose: str) -> Column:
    """Return a uniform number in [0, 1) from (seed, purpose, user_id)."""
    hashed = F.xxhash64(F.lit(f"{seed}/{purpose}"), user_id)
    return F.pmod(hashed, F.lit(_NUM_DRAWS)) / F.lit(float(_NUM_DRAWS))


def _role(user_id: Column, seed: int) -> Column:
    """Return the role of `ROLES` for a user's held-back item."""
    drawn = draw(user_id, seed, "role")
    return (
        F.when(drawn < ROLES["stage2"], "stage2")
        .when(drawn < ROLES["stage2"] + ROLES["early_stop"], "early_stop")
        .otherwise("blend")
    )

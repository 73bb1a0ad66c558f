"""User sequences as of a run date, with window functions only: nothing a user did is collected beyond what is kept."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.config import SequencesConfig
from allmrec.data.interactions import before, empty


def user_sequences(
    counted: DataFrame,
    users: DataFrame | None,
    seen_users: DataFrame,
    settings: SequencesConfig,
    run_date: dt.date,
) -> DataFrame:
    """Return a row a user of the `user_sequences` table, as of `run_date`.

    `counted` are the interactions that count (user_id, item_id, event_time), `seen_users` (user_id, any further columns) everyone in the
    log before the cut-off, `users` (user_id) the optional table of users. Who has no counted interaction gets empty arrays.
    Sequences are oldest first, ties by item_id, the newest `max_history`; num_interactions counts all counted ones, folded or not.
    """
    sequences = newest_first(before(counted, run_date), settings)
    event = F.sort_array(F.collect_list(F.struct("event_time", "item_id")))
    rows = (
        sequences.where(F.col("place") <= settings.max_history)
        .groupBy("user_id")
        .agg(event.alias("events"), F.max("num_interactions").alias("num_interactions"))
        .select(
            "user_id",
            F.col("events.item_id").alias("item_ids"),
            F.col("events.event_time").alias("event_times"),
            "num_interactions",
            F.try_element_at("events", F.lit(-1))["event_time"].alias("last_event_time"),
        )
    )
    everyone = seen_users.select("user_id")
    if users is not None:
        everyone = everyone.union(users.select("user_id"))
    everyone = everyone.where(F.col("user_id").isNotNull() & ~empty(F.col("user_id"))).distinct()
    return everyone.join(rows, "user_id", "full").select(
        F.lit(run_date).alias("run_date"),
        "user_id",
        F.coalesce("item_ids", F.array().cast("array<string>")).alias("item_ids"),
        F.coalesce("event_times", F.array().cast("array<timestamp>")).alias("event_times"),
        F.coalesce("num_interactions", F.lit(0)).cast("long").alias("num_interactions"),
        "last_event_time",
    )


def newest_first(counted: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return (user_id, item_id, event_time, num_interactions, place): place 1 is a user's newest interaction. Folded where settings say so."""
    newest = [F.col("event_time").desc(), F.col("item_id").desc()]
    rows = counted.select("user_id", "item_id", "event_time")
    rows = rows.withColumn("num_interactions", F.count(F.lit(1)).over(Window.partitionBy("user_id")))
    if settings.repeats == "fold":
        again = F.row_number().over(Window.partitionBy("user_id", "item_id").orderBy(*newest))
        rows = rows.withColumn("_again", again).where("_again = 1").drop("_again")
    return rows.withColumn("place", F.row_number().over(Window.partitionBy("user_id").orderBy(*newest)))


def full_sequences(
    counted: DataFrame, settings: SequencesConfig, run_date: dt.date | None = None
) -> DataFrame:
    """Return (user_id, item_ids) with every counted interaction before `run_date` (null: all), oldest first: what splits are made of."""
    rows = newest_first(counted if run_date is None else before(counted, run_date), settings)
    event = F.sort_array(F.collect_list(F.struct("event_time", "item_id")))
    return (
        rows.groupBy("user_id")
        .agg(event.alias("events"))
        .select("user_id", F.col("events.item_id").alias("item_ids"))
    )


def seen_items(good: DataFrame, run_date: dt.date | None = None) -> DataFrame:
    """Return (user_id, seen array<string>): every distinct item of the user's good interactions before `run_date` (null: all), sorted.

    Ratings and event types do not matter: what was seen was seen.
    """
    rows = good if run_date is None else before(good, run_date)
    return rows.groupBy("user_id").agg(F.sort_array(F.collect_set("item_id")).alias("seen"))

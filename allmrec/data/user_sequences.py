"""User sequences as of a run date, made with window functions: only the events that stay are collected."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from allmrec.config import SequencesConfig
from allmrec.data.columns import is_blank


def user_sequences(
    counted: DataFrame,
    users: DataFrame | None,
    seen_users: DataFrame,
    settings: SequencesConfig,
    run_date: dt.date,
) -> DataFrame:
    """Return the rows of the table `user_sequences` as of `run_date`, one per user.

    `counted` are the interactions that count (user_id, item_id, event_time) and `seen_users` (user_id, any
    further columns) everyone, both of the log before the cut-off; `users` (user_id) is the optional table of
    users. Users without a counted interaction get empty arrays. A sequence holds the newest
    `max_history` items, oldest first, ties by item_id; num_interactions counts all that count, folded or not.
    """
    events = (
        _newest_first(counted, settings)
        .where(F.col("recency_rank") <= settings.max_history)
        .groupBy("user_id")
        .agg(_oldest_first().alias("events"), F.max("num_interactions").alias("num_interactions"))
    )
    rows = events.select(
        "user_id",
        F.col("events.item_id").alias("item_ids"),
        F.col("events.event_time").alias("event_times"),
        "num_interactions",
        F.try_element_at("events", F.lit(-1))["event_time"].alias("last_event_time"),
    )
    everyone = seen_users.select("user_id")
    if users is not None:
        everyone = everyone.union(users.select("user_id"))
    everyone = everyone.where(F.col("user_id").isNotNull() & ~is_blank(F.col("user_id"))).distinct()
    return everyone.join(rows, "user_id", "full").select(
        F.lit(run_date).alias("run_date"),
        "user_id",
        F.coalesce("item_ids", F.array().cast("array<string>")).alias("item_ids"),
        F.coalesce("event_times", F.array().cast("array<timestamp>")).alias("event_times"),
        F.coalesce("num_interactions", F.lit(0)).cast("long").alias("num_interactions"),
        "last_event_time",
    )


def full_sequences(counted: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return (user_id, item_ids array<string>): every counted interaction, oldest first."""
    events = _newest_first(counted, settings).groupBy("user_id").agg(_oldest_first().alias("events"))
    return events.select("user_id", F.col("events.item_id").alias("item_ids"))


def seen_items(log: DataFrame) -> DataFrame:
    """Return (user_id, seen array<string>): every distinct item of the user's rows in `log`, sorted.

    `log` is the table `interactions` before the cut-off. Rows count whether they are valid or not, and
    whatever their rating and event type: what was seen was seen. Rows without an item add nothing.
    """
    return log.groupBy("user_id").agg(F.sort_array(F.collect_set("item_id")).alias("seen"))


def _newest_first(counted: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return (user_id, item_id, event_time, num_interactions, recency_rank).

    Of repeated items only the newest stays where the settings say so (`repeats: fold`).
    recency_rank 1 is a user's newest row; num_interactions counts the user's rows before folding.
    """
    newest_first = [F.col("event_time").desc(), F.col("item_id").desc()]
    rows = counted.select("user_id", "item_id", "event_time")
    rows = rows.withColumn("num_interactions", F.count(F.lit(1)).over(Window.partitionBy("user_id")))
    if settings.repeats == "fold":
        sighting = F.row_number().over(Window.partitionBy("user_id", "item_id").orderBy(*newest_first))
        rows = rows.withColumn("_sighting", sighting).where("_sighting = 1").drop("_sighting")
    recency_rank = F.row_number().over(Window.partitionBy("user_id").orderBy(*newest_first))
    return rows.withColumn("recency_rank", recency_rank)


def _oldest_first() -> Column:
    """Return the aggregate of a user's events as structs (event_time, item_id), in that order."""
    return F.sort_array(F.collect_list(F.struct("event_time", "item_id")))

"""User sequences as of a run date, made with window functions.

Only the events of a sequence are collected. Events of a user at one time have no order, so that a hash of
user, item and time orders them, and models learn nothing from the order of the ids. Several events with one
item at one time are one event.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from allmrec.config import SequencesConfig
from allmrec.data.columns import is_blank

_EVENTS = "array<struct<event_time:timestamp,draw:bigint,item_id:string>>"
"""A user's events. Sorted, they are oldest first, ties by `draw`."""


def user_sequences(
    log: DataFrame,
    counted: DataFrame,
    users: DataFrame | None,
    settings: SequencesConfig,
    run_date: dt.date,
    last: DataFrame | None = None,
) -> DataFrame:
    """Return the rows of `user_sequences` as of `run_date`.

    `log` are the interactions before the cut-off, good or bad, with the `reason` of bad ones (rows without a
    time may be among them); `counted` the good ones that count (user_id, item_id, event_time); `users`
    (user_id) is the optional table of users. Users of that table and users with a good row have a row; its
    arrays are empty without a counted interaction. A sequence has the newest `max_history` items, oldest
    first, ties by a hash; num_interactions counts all events that count, folded or not.

    With `last`, rows of this table as of an earlier date, `log` and `counted` are only the rows that are new
    since. The result is the same as from the whole log.
    """
    events = (
        _newest_first(counted, settings)
        .where(F.col("recency_rank") <= settings.max_history)
        .groupBy("user_id")
        .agg(_oldest_first().alias("events"), F.max("num_interactions").alias("num_interactions"))
    )
    everyone = log.where("reason IS NULL").select("user_id")
    if users is not None:
        everyone = everyone.union(users.select("user_id"))
    if last is not None:
        # Users without events came from the table `users`. They may have left it, so they are not carried
        # over.
        everyone = everyone.union(last.where(F.size("seen_item_ids") > 0).select("user_id"))
    everyone = everyone.where(F.col("user_id").isNotNull() & ~is_blank(F.col("user_id"))).distinct()
    rows = everyone.join(events, "user_id", "left").join(seen_items(log), "user_id", "left")
    nothing = F.array().cast(_EVENTS)
    rows = rows.select(
        "user_id",
        F.coalesce("events", nothing).alias("events"),
        F.coalesce("num_interactions", F.lit(0)).cast("long").alias("num_interactions"),
        F.coalesce("seen", F.array().cast("array<string>")).alias("seen_item_ids"),
    )
    if last is not None:
        rows = _after(rows, last, settings)
    return rows.select(
        F.lit(run_date).alias("run_date"),
        "user_id",
        F.col("events.item_id").alias("item_ids"),
        F.col("events.event_time").alias("event_times"),
        "num_interactions",
        F.try_element_at("events", F.lit(-1))["event_time"].alias("last_event_time"),
        "seen_item_ids",
    )


def _after(rows: DataFrame, last: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return `rows` (user_id, events, num_interactions, seen_item_ids) merged with `last`.

    Items that a sequence has dropped are older than its others. The newest items of both sequences are
    therefore the newest of both logs.
    """
    zipped = F.arrays_zip(F.col("event_times").alias("event_time"), F.col("item_ids").alias("item_id"))
    drawn = F.transform(
        zipped,
        lambda event: F.struct(
            event["event_time"],
            _draw(F.col("user_id"), event["item_id"], event["event_time"]).alias("draw"),
            event["item_id"],
        ),
    )
    before = last.select(
        "user_id",
        drawn.cast(_EVENTS).alias("old_events"),
        F.col("num_interactions").alias("old_num"),
        F.col("seen_item_ids").alias("old_seen"),
    )
    nothing = F.array()
    old_events = F.coalesce("old_events", nothing.cast(_EVENTS))
    old_seen = F.coalesce("old_seen", nothing.cast("array<string>"))
    both = F.array_distinct(F.concat(old_events, "events"))
    if settings.repeats == "fold":
        both = F.filter(both, lambda event: ~F.exists(both, _later_than(event)))
    ordered = F.sort_array(both)
    first = F.greatest(F.size(ordered) - settings.max_history, F.lit(0)) + 1
    seen = F.sort_array(F.array_union(old_seen, F.col("seen_item_ids")))
    is_new = F.size("seen_item_ids") > 0
    return rows.join(before, "user_id", "left").select(
        "user_id",
        F.when(is_new, F.slice(ordered, first, settings.max_history)).otherwise(old_events).alias("events"),
        (F.col("num_interactions") + F.coalesce("old_num", F.lit(0))).alias("num_interactions"),
        F.when(is_new, seen).otherwise(old_seen).alias("seen_item_ids"),
    )


def _later_than(event: Column) -> Callable[[Column], Column]:
    """Return whether another event is a later one with the same item."""
    return lambda other: (other["item_id"] == event["item_id"]) & (other["event_time"] > event["event_time"])


def ordered_events(counted: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return (user_id, events): every counted interaction of a user, oldest first.

    An event is a struct (place, item_id, event_time, replaced_at). `place` counts a user's events from 1.
    `replaced_at` is the place of the next event with the same item if `repeats` is `fold`, else null: from
    that place on the earlier event is not part of the sequence.
    """
    oldest_first = Window.partitionBy("user_id").orderBy("event_time", "draw", "item_id")
    place = F.row_number().over(oldest_first)
    rows = _with_draw(counted).distinct().withColumn("place", place)
    replaced_at = F.lit(None).cast("int")
    if settings.repeats == "fold":
        replaced_at = F.lead("place").over(Window.partitionBy("user_id", "item_id").orderBy("place"))
    event = F.struct("place", "item_id", "event_time", replaced_at.alias("replaced_at"))
    rows = rows.select("user_id", event.alias("event"))
    return rows.groupBy("user_id").agg(F.sort_array(F.collect_list("event")).alias("events"))


def seen_items(log: DataFrame) -> DataFrame:
    """Return (user_id, seen array<string>): distinct items of the user's rows, sorted.

    `log` are interactions before the cut-off; `_sighted` decides which rows count.
    """
    return _sighted(log).groupBy("user_id").agg(F.sort_array(F.collect_set("item_id")).alias("seen"))


def first_sightings(log: DataFrame) -> DataFrame:
    """Return (user_id, item_id, first_time): a user's first event with an item.

    A night with a later cut-off has the item in `seen_items`.
    """
    return _sighted(log).groupBy("user_id", "item_id").agg(F.min("event_time").alias("first_time"))


def _sighted(log: DataFrame) -> DataFrame:
    """Return the rows that count as seen.

    Rows without an item add nothing. Rows without a time add nothing, because they precede no cut-off.
    """
    return log.where(F.col("event_time").isNotNull() & F.col("item_id").isNotNull())


def num_tied(event_times: Column) -> Column:
    """Return how many events follow another event at the same time: int64."""
    return (F.size(event_times) - F.size(F.array_distinct(event_times))).cast("long")


def _newest_first(counted: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return (user_id, item_id, event_time, draw, num_interactions, recency_rank).

    With `repeats: fold` only the newest event of an item stays. recency_rank 1 is a user's newest event;
    equal events have equal ranks. num_interactions counts the user's rows before folding.
    """
    newest_first = [F.col("event_time").desc(), F.col("draw").desc(), F.col("item_id").desc()]
    rows = _with_draw(counted).withColumn(
        "num_interactions", F.count(F.lit(1)).over(Window.partitionBy("user_id"))
    )
    if settings.repeats == "fold":
        sighting = F.row_number().over(Window.partitionBy("user_id", "item_id").orderBy(*newest_first))
        rows = rows.withColumn("_sighting", sighting).where("_sighting = 1").drop("_sighting")
    recency_rank = F.dense_rank().over(Window.partitionBy("user_id").orderBy(*newest_first))
    return rows.withColumn("recency_rank", recency_rank)


def _with_draw(counted: DataFrame) -> DataFrame:
    """Return (user_id, item_id, event_time, draw) of every row."""
    draw = _draw(F.col("user_id"), F.col("item_id"), F.col("event_time"))
    return counted.select("user_id", "item_id", "event_time", draw.alias("draw"))


def _draw(user_id: Column, item_id: Column, event_time: Column) -> Column:
    """Return the hash (int64) that orders a user's events at one time."""
    return F.xxhash64(user_id, item_id, event_time)


def _oldest_first() -> Column:
    """Return the aggregate of a user's distinct events as `_EVENTS`, oldest first."""
    return F.sort_array(F.collect_set(F.struct("event_time", "draw", "item_id")))

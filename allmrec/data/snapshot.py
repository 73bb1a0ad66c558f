"""The training snapshot: a folder that training reads without Spark.

    items/*.parquet       one file, sorted by item_idx: the good items
      item_idx            int            1 to I, in the order of item_id
      item_id             string
      title               string
      description         string         '' if it is missing
      categories          array<string>  from root to leaf, empty if they are missing
      num_interactions    long           number of its occurrences in the train items of all users
      available           boolean        whether a night of the cut-off may recommend it

    sequences/*.parquet   one row per user with at least one train item, sorted by user_id within a file
      user_id             string
      item_idx            array<int>     the newest max_history train items, oldest first, left-padded with 0
      length              int            number of them that are not padding, at least 1
      held_back           int            item_idx of the held-back item, 0 without one
      role                string         its role: stage2, early_stop or blend; '' without one

    held_back/*.parquet   the rows of sequences/ with held_back > 0, the same columns, and
      seen_before         array<int>     sorted: the items of items/ that the user had before the held-back
                                         event; the held-back item too if it is repeated

    targets/*.parquet     if purpose is evaluation: one row per user with a test item
      user_id             string
      history             array<string>  the newest max_history items before the test event, oldest first
      target              string         the test item
      seen_before         array<string>  sorted: all items the user had before the test event; the target
                                         too if it is repeated

    manifest.json         one JSON object, written last: a folder without it is incomplete
      num_users           users of the training: with a counted interaction before the cut-off
      num_items           I, the rows of items/
      num_sequences       rows of sequences/
      num_held_back       rows of held_back/
      max_history         L, the length of every item_idx array
      purpose             serving or evaluation
      cut_off             a run date, ISO: all events are before it
      table_versions      the versions of the input tables, by table
      fingerprint         of all inputs of the snapshot
      digest              sum of the hashes of the rows of items/ and sequences/

`seen_before` has the items that a night right before the event would count as seen: the items of rows with
an earlier time, good or bad, and the items of the sequence up to the event. No row of sequences/ or
held_back/ therefore depends on the test event. `splits.split` decides which events train, are held back or
tested. targets/ is for `evaluate` alone: training never opens it. A file of sequences/ or held_back/ is one
row group of at most `ROW_GROUP_ROWS` rows. The rows alone decide their files and their order.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from allmrec.config import Config
from allmrec.data.splits import split
from allmrec.errors import InputError
from allmrec.spark import filesystem
from allmrec.spark.cached_frames import CachedFrames
from allmrec.spark.literal_paths import read_parquet
from allmrec.tables.delta import row_digest

ROW_GROUP_ROWS = 20_000
"""Rows per file, which is one row group: the loader has a few of them in memory at once."""
_ROW_GROUPS_PER_TASK = 10
"""Approximate number of files that a Spark task writes."""
_OF_USERS = {"sequences": "num_sequences", "held_back": "num_held_back", "targets": ""}
"""The folders with rows of users → key of their number in the manifest."""


def snapshot_uri(root: str, name: str) -> str:
    """Return the folder of a snapshot (a training's fingerprint) below `tables.root`."""
    return f"{root.rstrip('/')}/_snapshots/{name}"


def held_out_users(users: DataFrame, sightings: DataFrame, max_history: int) -> DataFrame:
    """Return the rows of targets/.

    `users` is a result of `split`, `sightings` of `first_sightings`. The last item of some histories was held
    back in training, so that only stage 2, early stopping and the blend may have seen it.
    """
    tested = users.where(F.col("test").isNotNull())
    history = F.slice("history", -F.least(F.size("history"), F.lit(max_history)), max_history)
    return tested.join(seen_before(tested, sightings, "test_time", "history"), "user_id").select(
        "user_id", history.alias("history"), F.col("test").alias("target"), "seen_before"
    )


def seen_before(users: DataFrame, sightings: DataFrame, moment: str, sequence: str) -> DataFrame:
    """Return (user_id, seen_before array<string>, sorted): earlier items of each user.

    They are the items with a sighting before the column `moment`, and the items of the column `sequence`,
    because events at the same time may precede the event.
    """
    earlier = users.select("user_id", moment).join(sightings, "user_id")
    earlier = earlier.where(F.col("first_time") < F.col(moment))
    earlier = earlier.groupBy("user_id").agg(F.collect_set("item_id").alias("earlier"))
    rows = users.select("user_id", sequence).join(earlier, "user_id", "left")
    nothing = F.array().cast("array<string>")
    both = F.array_union(F.coalesce("earlier", nothing), F.col(sequence))
    return rows.select("user_id", F.sort_array(both).alias("seen_before"))


def write_snapshot(
    events: DataFrame,
    items: DataFrame,
    sightings: DataFrame,
    folder_uri: str,
    config: Config,
    manifest_extra: dict[str, Any],
) -> dict[str, Any]:
    """Write the snapshot to `folder_uri` and return its manifest.

    `events` is a result of `ordered_events` for the log before the cut-off, `sightings` of `first_sightings`,
    `items` the good items, `manifest_extra` the origin of the snapshot (cut_off, table_versions,
    fingerprint). Raises InputError where no training interaction is left.
    """
    spark = events.sparkSession
    filesystem.delete(spark, folder_uri)
    training = config.training
    with CachedFrames() as frames:
        everyone = frames.keep(split(events, training.purpose, training.held_back_share, config.seed))
        users = everyone
        if training.max_users is not None:
            drawn = F.sha2(F.concat(F.lit(f"{config.seed}:few:"), "user_id"), 256)
            users = frames.keep(everyone.orderBy(drawn, "user_id").limit(training.max_users))
        numbering = F.row_number().over(Window.orderBy("item_id"))
        index = frames.keep(items.select("item_id", numbering.alias("item_idx")))
        num_items = _write_items(items, index, users, f"{folder_uri}/items")
        rows = _indexed(users, index, config.sequences.max_history)
        num_sequences = _write_rows(rows, f"{folder_uri}/sequences", users.count())
        if not num_sequences:
            raise InputError(
                "no user has a training interaction before the run date; "
                "import interactions, or choose a later --run-date"
            )
        held_back = _with_seen_before(rows.where("held_back > 0"), users, sightings, index)
        num_held_back = _write_rows(held_back, f"{folder_uri}/held_back", num_sequences)
        if training.purpose == "evaluation":
            held_out_users(everyone, sightings, config.sequences.max_history).write.parquet(
                f"{folder_uri}/targets"
            )
        manifest = {
            "num_users": users.count(),
            "num_items": num_items,
            "num_sequences": num_sequences,
            "num_held_back": num_held_back,
            "max_history": config.sequences.max_history,
            "purpose": training.purpose,
            "digest": _digest(spark, folder_uri),
            **manifest_extra,
        }
        manifest_text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        filesystem.write_text(spark, manifest_text, f"{folder_uri}/manifest.json")
        return manifest


def snapshot_names(spark: SparkSession, root: str) -> list[str]:
    """Return the names of all snapshots below `tables.root`, incomplete ones included."""
    return filesystem.list_folders(spark, f"{root.rstrip('/')}/_snapshots")


def count_user(spark: SparkSession, folder_uri: str, user: str) -> int:
    """Return the number of a user's rows in a snapshot."""
    parts = [part for part in _OF_USERS if filesystem.exists(spark, f"{folder_uri}/{part}")]
    rows = (read_parquet(spark, f"{folder_uri}/{part}").where(F.col("user_id") == user) for part in parts)
    return sum(frame.count() for frame in rows)


def write_without_user(spark: SparkSession, folder_uri: str, user: str) -> None:
    """Write a snapshot again without the rows of a user.

    An incomplete snapshot of a killed training is deleted.
    """
    text = f"{folder_uri}/manifest.json"
    if not filesystem.exists(spark, text):
        filesystem.delete(spark, folder_uri)
        return
    manifest = json.loads(filesystem.read_text(spark, text))
    folder, name = folder_uri.rsplit("/", 1)
    partial = f"{folder}/.{name}-without"
    filesystem.delete(spark, partial)
    items = read_parquet(spark, f"{folder_uri}/items")
    items.repartition(1).sortWithinPartitions("item_idx").write.parquet(f"{partial}/items")
    for part in _OF_USERS:
        if filesystem.exists(spark, f"{folder_uri}/{part}"):
            rows = read_parquet(spark, f"{folder_uri}/{part}").where(F.col("user_id") != user)
            num_rows = _write_rows(rows, f"{partial}/{part}", rows.count())
            manifest |= {_OF_USERS[part]: num_rows} if _OF_USERS[part] else {}
    trained = read_parquet(spark, f"{folder_uri}/sequences").where(F.col("user_id") == user)
    manifest["num_users"] -= trained.count()
    manifest["digest"] = _digest(spark, partial)
    manifest_text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    filesystem.write_text(spark, manifest_text, f"{partial}/manifest.json")
    filesystem.delete(spark, folder_uri)
    filesystem.rename_new(spark, partial, folder_uri)


def _digest(spark: SparkSession, folder_uri: str) -> str:
    """Return the digest of a snapshot's manifest."""
    parts = (read_parquet(spark, f"{folder_uri}/{part}") for part in ("items", "sequences"))
    return str(sum(int(rows.agg(row_digest()).collect()[0][0] or 0) for rows in parts))


def _write_items(items: DataFrame, index: DataFrame, users: DataFrame, uri: str) -> int:
    """Write items/ and return the number of its rows.

    `index` is (item_id, item_idx), `users` a result of `split`.
    """
    counts = (
        users.select(F.explode("train_items").alias("item_id"))
        .groupBy("item_id")
        .agg(F.count(F.lit(1)).alias("num_interactions"))
    )
    rows = items.join(index, "item_id").join(counts, "item_id", "left")
    rows = rows.select(
        "item_idx",
        "item_id",
        "title",
        F.coalesce("description", F.lit("")).alias("description"),
        F.coalesce("categories", F.array().cast("array<string>")).alias("categories"),
        F.coalesce("num_interactions", F.lit(0)).cast("long").alias("num_interactions"),
        "available",
    )
    rows.repartition(1).sortWithinPartitions("item_idx").write.mode("overwrite").parquet(uri)
    return index.count()


def _indexed(users: DataFrame, index: DataFrame, max_history: int) -> DataFrame:
    """Return the rows of sequences/.

    Every item is looked up once: train items at their positions, the held-back item at position -1.
    """
    newest = F.expr(f"slice(train_items, greatest(size(train_items) - {max_history}, 0) + 1, {max_history})")
    trained = users.where(F.size("train_items") > 0).select(
        "user_id", "role", newest.alias("newest"), "held_back"
    )
    positions = F.concat(
        F.expr("transform(newest, (item, position) -> struct(position, item AS item_id))"),
        F.expr("if(held_back IS NULL, array(), array(struct(-1 AS position, held_back AS item_id)))"),
    )
    rows = trained.select("user_id", "role", F.inline(positions)).join(index, "item_id")
    train_item = F.when(F.col("position") >= 0, F.struct("position", "item_idx"))
    held_back = F.max(F.when(F.col("position") < 0, F.col("item_idx")))
    rows = rows.groupBy("user_id", "role").agg(
        F.sort_array(F.collect_list(train_item)).alias("history"),
        F.coalesce(held_back, F.lit(0)).alias("held_back"),
    )
    padding = F.array_repeat(F.lit(0), F.lit(max_history) - F.size("history"))
    return rows.where(F.size("history") > 0).select(
        "user_id",
        F.concat(padding, "history.item_idx").alias("item_idx"),
        F.size("history").alias("length"),
        "held_back",
        "role",
    )


def _with_seen_before(rows: DataFrame, users: DataFrame, sightings: DataFrame, index: DataFrame) -> DataFrame:
    """Return `rows` of held_back/ with the column `seen_before`."""
    held_back = users.where(F.col("held_back").isNotNull())
    seen = seen_before(held_back, sightings, "held_back_time", "train_items")
    seen = seen.select("user_id", F.explode("seen_before").alias("item_id")).join(index, "item_id")
    seen = seen.groupBy("user_id").agg(F.sort_array(F.collect_list("item_idx")).alias("seen_before"))
    nothing = F.array().cast("array<int>")
    return rows.join(seen, "user_id", "left").withColumn("seen_before", F.coalesce("seen_before", nothing))


def _write_rows(rows: DataFrame, uri: str, about: int) -> int:
    """Write `rows`, about `about` of them, and return their number.

    Each file has one row group. The user ids alone decide the file of a row.
    """
    num_tasks = max(1, math.ceil(about / (ROW_GROUP_ROWS * _ROW_GROUPS_PER_TASK)))
    tasks = rows.repartition(num_tasks, F.xxhash64("user_id")) if num_tasks > 1 else rows.repartition(1)
    # Spark's Parquet bounds a row group only by bytes; this many rows are far below that bound.
    writer = tasks.sortWithinPartitions("user_id").write.mode("overwrite")
    writer.option("maxRecordsPerFile", ROW_GROUP_ROWS).parquet(uri)
    return read_parquet(rows.sparkSession, uri, schema=rows.schema).count()

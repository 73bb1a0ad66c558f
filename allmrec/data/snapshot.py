"""The training snapshot: Parquet folders that the torch half reads without Spark, pinned to the table versions it was made of.

    items/      item_idx int, item_id, title, description, categories array<string>, num_interactions long (in train_items); one file
    sequences/  user_id, item_idx array<int> (train_items' newest, max_history long, left-padded with 0), length int, held_back int, role
    held_back/  the rows of sequences/ that hold an item back, and seen array<int>: all the user had but the held-back and the test item
    manifest.json

item_idx counts 1..I in the order of item_id. A test item is in no row. Files and row groups depend on the rows alone.
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
from allmrec.tables import filesystem

_ROW_GROUPS_A_TASK = 10


def write_snapshot(
    sequences_full: DataFrame,
    items: DataFrame,
    seen: DataFrame,
    folder_uri: str,
    config: Config,
    manifest_extra: dict[str, Any],
) -> dict[str, Any]:
    """Write the snapshot to `folder_uri`, replacing what is there, and return its manifest.

    `sequences_full` is (user_id, item_ids) before the cut-off, `items` the good items, `seen` (user_id, seen array<string>). The manifest is
    written last: a folder without one is no snapshot. Raises InputError where nothing is left to train on.
    """
    spark = sequences_full.sparkSession
    filesystem.delete(spark, folder_uri)
    users = split(
        sequences_full, config.training.purpose, config.training.held_back_share, config.seed
    ).persist()
    index = items.select(
        "item_id", F.row_number().over(Window.orderBy("item_id")).alias("item_idx")
    ).persist()
    try:
        num_items = _write_items(items, index, users, f"{folder_uri}/items")
        rows = _indexed(users, index, config.sequences.max_history)
        num_sequences = _write_rows(rows, f"{folder_uri}/sequences", users.count(), config)
        if not num_sequences:
            raise InputError(
                "no user has a training interaction before the run date; import interactions, or choose a later --run-date"
            )
        held_back = _with_seen(rows.where("held_back > 0"), users, seen, index)
        num_held_back = _write_rows(held_back, f"{folder_uri}/held_back", num_sequences, config)
        manifest = {
            "num_users": users.count(),
            "num_items": num_items,
            "num_sequences": num_sequences,
            "num_held_back": num_held_back,
            "max_history": config.sequences.max_history,
            "purpose": config.training.purpose,
            **manifest_extra,
        }
        filesystem.write_text(
            spark, json.dumps(manifest, indent=2, sort_keys=True) + "\n", f"{folder_uri}/manifest.json"
        )
        return manifest
    finally:
        users.unpersist()
        index.unpersist()


def read_manifest(spark: SparkSession, folder_uri: str) -> dict[str, Any] | None:
    """Return the manifest of the snapshot at `folder_uri`, or None where there is no finished one."""
    uri = f"{folder_uri}/manifest.json"
    return json.loads(filesystem.read_text(spark, uri)) if filesystem.exists(spark, uri) else None


def _write_items(items: DataFrame, index: DataFrame, users: DataFrame, uri: str) -> int:
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
    )
    rows.repartition(1).sortWithinPartitions("item_idx").write.mode("overwrite").parquet(uri)
    return index.count()


def _indexed(users: DataFrame, index: DataFrame, max_history: int) -> DataFrame:
    """Return the rows of sequences/: items looked up once, train items at their positions and the held-back one at position -1."""
    kept = F.expr(f"slice(train_items, greatest(size(train_items) - {max_history}, 0) + 1, {max_history})")
    trained = users.where(F.size("train_items") > 0).select(
        "user_id", "role", kept.alias("kept"), "held_back"
    )
    places = F.concat(
        F.expr("transform(kept, (item, place) -> struct(place, item AS item_id))"),
        F.expr("if(held_back IS NULL, array(), array(struct(-1 AS place, held_back AS item_id)))"),
    )
    rows = trained.select("user_id", "role", F.inline(places)).join(index, "item_id")
    # Zero is no item, so it is also "none".
    rows = rows.groupBy("user_id", "role").agg(
        F.sort_array(F.collect_list(F.when(F.col("place") >= 0, F.struct("place", "item_idx")))).alias(
            "kept"
        ),
        F.coalesce(F.max(F.when(F.col("place") < 0, F.col("item_idx"))), F.lit(0)).alias("held_back"),
    )
    padding = F.array_repeat(F.lit(0), F.lit(max_history) - F.size("kept"))
    return rows.where(F.size("kept") > 0).select(
        "user_id",
        F.concat(padding, "kept.item_idx").alias("item_idx"),
        F.size("kept").alias("length"),
        "held_back",
        "role",
    )


def _with_seen(rows: DataFrame, users: DataFrame, seen: DataFrame, index: DataFrame) -> DataFrame:
    hidden = users.where("held_back IS NOT NULL").select(
        "user_id", F.array_compact(F.array("held_back", "test")).alias("hidden")
    )
    shown = seen.join(hidden, "user_id").select(
        "user_id", F.explode(F.array_except("seen", "hidden")).alias("item_id")
    )
    shown = (
        shown.join(index, "item_id")
        .groupBy("user_id")
        .agg(F.sort_array(F.collect_set("item_idx")).alias("seen"))
    )
    return rows.join(shown, "user_id", "left").withColumn(
        "seen", F.coalesce("seen", F.array().cast("array<int>"))
    )


def _write_rows(rows: DataFrame, uri: str, about: int, config: Config) -> int:
    """Write `rows` (about so many) sorted by user_id, a file a row group, what lies where depending on the user ids alone; return their number."""
    a_group = config.training.row_group_rows
    num_tasks = max(1, math.ceil(about / (a_group * _ROW_GROUPS_A_TASK)))
    placed = rows.repartition(num_tasks, F.xxhash64("user_id")) if num_tasks > 1 else rows.repartition(1)
    # Spark's Parquet bounds a row group by bytes only; so many rows are far below that bound.
    placed.sortWithinPartitions("user_id").write.mode("overwrite").option(
        "maxRecordsPerFile", a_group
    ).parquet(uri)
    return rows.sparkSession.read.schema(rows.schema).parquet(uri).count()

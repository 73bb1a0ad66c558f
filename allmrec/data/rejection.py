"""Rejected rows: their reasons, and the table `rejected_rows`.

A tagged frame has the columns of its table, `reason` (null: the row is good) and `raw` (the row as it was
read, as JSON; null if the columns contain everything). `interactions.tagged` and `items.tagged_items` list
the reasons.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from allmrec.data.columns import json_object
from allmrec.spark.cached_frames import CachedFrames
from allmrec.tables.delta import Tables


def raw_row(rows: DataFrame, columns: Sequence[str]) -> Column:
    """Return the reader's row (`raw`), else `columns`, as JSON."""
    return F.col("raw") if "raw" in rows.columns else json_object(*columns)


def reader_problem(rows: DataFrame) -> Column:
    """Return the reader's reason to reject the row (`problem`), or null."""
    return F.col("problem") if "problem" in rows.columns else F.lit(None).cast("string")


def keep_raw(rows: DataFrame) -> DataFrame:
    """Keep `raw` of bad rows, so that shuffles are small."""
    return rows.withColumn("raw", F.when(F.col("reason").isNotNull(), F.col("raw")))


def reject_repeats(
    rows: DataFrame, key: Sequence[str], order: Sequence[Column | str], reason: str
) -> DataFrame:
    """Reject all good rows of equal `key` but the first in `order`.

    Bad rows are numbered apart. They keep their reason and never displace a good row.
    """
    good = F.col("reason").isNull()
    position = F.row_number().over(Window.partitionBy(*key, good).orderBy(*order))
    return rows.withColumn("reason", F.when(good & (position > 1), reason).otherwise(F.col("reason")))


def reject_known(rows: DataFrame, known: DataFrame, columns: Sequence[str], reason: str) -> DataFrame:
    """Reject the good rows that also occur in `known`.

    Nulls compare as equal. `known` has no duplicates.
    """
    is_same = F.lit(True)
    for name in columns:
        is_same = is_same & rows[name].eqNullSafe(F.col(f"known.{name}"))
    marked = known.select(*columns).withColumn("is_known", F.lit(True)).alias("known")
    found = rows.join(marked, is_same, "left")
    is_repeat = F.col("reason").isNull() & F.col("known.is_known").isNotNull()
    others = [rows[name] for name in rows.columns if name != "reason"]
    return found.select(*others, F.when(is_repeat, reason).otherwise(rows["reason"]).alias("reason"))


def rejected_row(columns: Sequence[str]) -> Column:
    """Return a tagged row as JSON: the reader's row, else its columns."""
    return F.coalesce(F.col("raw"), json_object(*columns))


def split_rejected(rows: DataFrame, table: str, columns: tuple[str, ...]) -> tuple[DataFrame, DataFrame]:
    """Split the tagged rows of `table` into good and rejected rows.

    Rejected rows are (table, row_hash, reason, row) without repeats: row is JSON, row_hash its SHA-256.
    """
    good = rows.where(F.col("reason").isNull()).select(*columns)
    row = rejected_row(columns)
    rejected = rows.where(F.col("reason").isNotNull()).select(
        F.lit(table).alias("table"), F.sha2(row, 256).alias("row_hash"), F.col("reason"), row.alias("row")
    )
    return good, rejected.dropDuplicates(["table", "row_hash", "reason"])


def merge_rejected(
    tables: Tables, rejected: DataFrame, step: str, run_id: str, first_seen: dt.datetime | None = None
) -> int:
    """Merge rejected rows into `rejected_rows` and return their number, new or not.

    `rejected` is a result of `split_rejected`, of one table or the union of several. A row that the table has
    keeps its first sighting (step, run_id, first_seen), so that a rerun adds nothing. `first_seen` is now by
    default (UTC). Raises TableError where the table cannot be written.
    """
    moment = first_seen or dt.datetime.now(dt.timezone.utc)
    sighting = {"step": F.lit(step), "run_id": F.lit(run_id), "first_seen": F.lit(moment)}
    with CachedFrames() as frames:
        rows = frames.keep(rejected.withColumns(sighting))
        num_rows = rows.count()
        if num_rows:
            tables.merge("rejected_rows", rows, update=False)
    return num_rows


def row_values() -> Column:
    """Return the values in `row` of rejected rows as texts. Null if it is no JSON.

    Ids that were decimals occur twice: as in their table, and as the whole number that was read.
    """
    values = F.map_values(_parsed_row())
    return F.array_union(values, F.transform(values, lambda value: F.regexp_replace(value, r"\.0+$", "")))


def hashes_of_user(rejected: DataFrame, user: str) -> list[str]:
    """Return the `row_hash` of the rejected rows that contain a user's id.

    A value may be the id, in any column; or the row is an unparsed line with the id as a word.
    """
    values = _parsed_row()
    is_value = F.array_contains(row_values(), user)
    word = rf"(?<![\p{{L}}\p{{N}}]){re.escape(user)}(?![\p{{L}}\p{{N}}])"
    is_in_line = values["line"].rlike(word) | (values.isNull() & F.col("row").rlike(word))
    named = F.coalesce(is_value, F.lit(False)) | F.coalesce(is_in_line, F.lit(False))
    return [row[0] for row in rejected.where(named).select("row_hash").distinct().collect()]


def _parsed_row() -> Column:
    """Return `row` of rejected rows as a map of texts. Null if it is no JSON."""
    return F.from_json("row", "map<string,string>")

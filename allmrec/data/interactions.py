"""Interactions: good rows and rejected ones, which of the good ones count, and the knowledge cut-off."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f
from pyspark.sql import types as t

from allmrec.config import SequencesConfig

COLUMNS = ("user_id", "item_id", "event_time", "rating", "event_type")
_LATEST_SECOND = 253_402_300_800  # the year 10000; milliseconds since 1970 are beyond it from 1978 on


def tagged(
    interactions: DataFrame, items: DataFrame | None, rating_range: tuple[float, float] | None = None, now: dt.datetime | None = None
) -> DataFrame:
    """Return every row with its `reason` (null: good) and `raw` (the row as JSON, null where the columns say it all).

    `interactions` has the columns of the table, or of an importer: then everything may be text, and `raw` and `problem` (a reason the reader
    found) say more. `items` is the catalogue (item_id), None to accept any; `now` (UTC) the time of the import. Good rows have the table's
    five columns and types. Reasons: the reader's, null_user_id, empty_user_id, null_item_id, empty_item_id, null_time, unparsable_time,
    time_after_import, rating_out_of_range (also no number), item_not_in_catalogue, exact_duplicate (all but one of equal rows). One join and
    one window over the log; `split_rejected` parts the rows.
    """
    rows = _with_row_reasons(interactions, rating_range, now)
    if items is not None:
        known = items.select("item_id").distinct().withColumn("_known", f.lit(True))
        unknown = f.when(f.col("reason").isNull() & f.col("_known").isNull(), "item_not_in_catalogue").otherwise(f.col("reason"))
        rows = rows.join(known, "item_id", "left").withColumn("reason", unknown).drop("_known")
    # Equal rows are interchangeable, so any order numbers them alike. The reason parts the bad ones, which are not duplicates.
    place = f.row_number().over(Window.partitionBy("user_id", "item_id", "event_time", "rating", "event_type", "reason").orderBy("item_id"))
    repeated = f.when(f.col("reason").isNull() & (f.col("_place") > 1), "exact_duplicate").otherwise(f.col("reason"))
    return rows.withColumn("_place", place).withColumn("reason", repeated).select(*COLUMNS, "raw", "reason")


def counted(good: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return the good interactions that count: of the event types, and with at least the minimum rating (or none)."""
    if settings.event_types is not None:
        good = good.where(f.col("event_type").isin(*settings.event_types))
    if settings.min_rating is not None:
        good = good.where(f.col("rating").isNull() | (f.col("rating") >= settings.min_rating))
    return good


def before(interactions: DataFrame, run_date: dt.date) -> DataFrame:
    """Return what happened before midnight (UTC) at the start of `run_date`, the knowledge cut-off."""
    midnight = dt.datetime(run_date.year, run_date.month, run_date.day, tzinfo=dt.timezone.utc)
    return interactions.where(f.col("event_time") < f.lit(midnight))


def parsed_time(column: Column, kind: t.DataType) -> Column:
    """Return a column of any type as a timestamp: Unix seconds, or an ISO date or time (UTC without a zone); null where it is neither.

    Milliseconds are null too: they would be dates thousands of years ahead.
    """
    if isinstance(kind, t.TimestampType):
        return column
    if isinstance(kind, t.DateType | t.TimestampNTZType):
        return column.cast("timestamp")
    text = f.trim(column.cast("string"))
    seconds = text.try_cast("decimal(20,6)")
    in_range = f.when(f.abs(seconds) < _LATEST_SECOND, seconds)
    # Without a full date Spark would read a bare time as one of today.
    iso = f.when(text.rlike(r"^\d{4}-\d{1,2}-\d{1,2}"), text).try_cast("timestamp")
    return f.when(seconds.isNotNull(), f.timestamp_micros((in_range * 1_000_000).cast("bigint"))).otherwise(iso)


def empty(identifier: Column) -> Column:
    """Return whether an id holds nothing but white space."""
    return ~identifier.rlike(r"[^\s\u0000]")


def keep_raw(rows: DataFrame) -> DataFrame:
    """Keep the raw row only where there is a reason: good rows are shuffled without it."""
    return rows.withColumn("raw", f.when(f.col("reason").isNotNull(), f.col("raw")))


def split_rejected(rows: DataFrame, table: str, columns: tuple[str, ...]) -> tuple[DataFrame, DataFrame]:
    """Split tagged rows into (good with `columns`, rejected as (table, row_hash, reason, row), each once)."""
    good = rows.where(f.col("reason").isNull()).select(*columns)
    row = f.coalesce(f.col("raw"), f.to_json(f.struct(*columns), {"ignoreNullFields": "false"}))
    rejected = rows.where(f.col("reason").isNotNull()).select(
        f.lit(table).alias("table"), f.sha2(row, 256).alias("row_hash"), f.col("reason"), row.alias("row")
    )
    return good, rejected.dropDuplicates(["table", "row_hash", "reason"])


def _with_row_reasons(interactions: DataFrame, rating_range: tuple[float, float] | None, now: dt.datetime | None) -> DataFrame:
    """Return the five typed columns, `raw` and the `reason` that a row shows by itself."""
    types = {column.name: column.dataType for column in interactions.schema}
    time, rating = f.col("event_time"), f.col("rating").cast("string")
    rows = interactions.select(
        "user_id",
        "item_id",
        parsed_time(time, types["event_time"]).alias("event_time"),
        f.nullif(f.trim(rating), f.lit("")).try_cast("double").alias("rating"),
        "event_type",
        (f.col("raw") if "raw" in types else f.to_json(f.struct(*COLUMNS), {"ignoreNullFields": "false"})).alias("raw"),
        (f.col("problem") if "problem" in types else f.lit(None).cast("string")).alias("problem"),
        f.coalesce(f.trim(time.cast("string")), f.lit("")).alias("_time"),
        f.coalesce(f.trim(rating), f.lit("")).alias("_rating"),
    )
    low, high = rating_range or (float("-inf"), float("inf"))
    # NaN is greater than every number for Spark, also than infinity.
    wrong_rating = (f.col("_rating") != "") & (f.col("rating").isNull() | f.isnan("rating") | ~f.col("rating").between(low, high))
    user, item = f.col("user_id"), f.col("item_id")
    reason = (
        f.when(f.col("problem").isNotNull(), f.col("problem"))
        .when(user.isNull(), "null_user_id")
        .when(empty(user), "empty_user_id")
        .when(item.isNull(), "null_item_id")
        .when(empty(item), "empty_item_id")
        .when(f.col("_time") == "", "null_time")
        .when(f.col("event_time").isNull(), "unparsable_time")
    )
    if now is not None:
        moment = now if now.tzinfo else now.replace(tzinfo=dt.timezone.utc)
        reason = reason.when(f.col("event_time") > f.lit(moment), "time_after_import")
    rows = rows.withColumn("reason", reason.when(wrong_rating, "rating_out_of_range"))
    return keep_raw(rows).select(*COLUMNS, "raw", "reason")

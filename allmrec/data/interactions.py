"""Interactions: good rows and rejected ones, which of the good ones count, and the knowledge cut-off."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import SequencesConfig

COLUMNS = ("user_id", "item_id", "event_time", "rating", "event_type")
_LATEST_SECOND = 253_402_300_800  # the year 10000; milliseconds since 1970 are beyond it from 1978 on


def tagged(
    interactions: DataFrame,
    items: DataFrame | None,
    rating_range: tuple[float, float] | None = None,
    now: dt.datetime | None = None,
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
        known = items.select("item_id").distinct().withColumn("_known", F.lit(True))
        unknown = F.when(
            F.col("reason").isNull() & F.col("_known").isNull(), "item_not_in_catalogue"
        ).otherwise(F.col("reason"))
        rows = rows.join(known, "item_id", "left").withColumn("reason", unknown).drop("_known")
    # Equal rows are interchangeable, so any order numbers them alike. The reason parts the bad ones, which are not duplicates.
    place = F.row_number().over(
        Window.partitionBy("user_id", "item_id", "event_time", "rating", "event_type", "reason").orderBy(
            "item_id"
        )
    )
    repeated = F.when(F.col("reason").isNull() & (F.col("_place") > 1), "exact_duplicate").otherwise(
        F.col("reason")
    )
    return rows.withColumn("_place", place).withColumn("reason", repeated).select(*COLUMNS, "raw", "reason")


def counted(good: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return the good interactions that count: of the event types, and with at least the minimum rating (or none)."""
    if settings.event_types is not None:
        good = good.where(F.col("event_type").isin(*settings.event_types))
    if settings.min_rating is not None:
        good = good.where(F.col("rating").isNull() | (F.col("rating") >= settings.min_rating))
    return good


def before(interactions: DataFrame, run_date: dt.date) -> DataFrame:
    """Return what happened before midnight (UTC) at the start of `run_date`, the knowledge cut-off."""
    midnight = dt.datetime(run_date.year, run_date.month, run_date.day, tzinfo=dt.timezone.utc)
    return interactions.where(F.col("event_time") < F.lit(midnight))


def parsed_time(column: Column, kind: T.DataType) -> Column:
    """Return a column of any type as a timestamp: Unix seconds, or an ISO date or time (UTC without a zone); null where it is neither.

    Milliseconds are null too: they would be dates thousands of years ahead.
    """
    if isinstance(kind, T.TimestampType):
        return column
    if isinstance(kind, T.DateType | T.TimestampNTZType):
        return column.cast("timestamp")
    text = F.trim(column.cast("string"))
    seconds = text.try_cast("decimal(20,6)")
    in_range = F.when(F.abs(seconds) < _LATEST_SECOND, seconds)
    # Without a full date Spark would read a bare time as one of today.
    iso = F.when(text.rlike(r"^\d{4}-\d{1,2}-\d{1,2}"), text).try_cast("timestamp")
    return F.when(seconds.isNotNull(), F.timestamp_micros((in_range * 1_000_000).cast("bigint"))).otherwise(
        iso
    )


def empty(identifier: Column) -> Column:
    """Return whether an id holds nothing but white space."""
    return ~identifier.rlike(r"[^\s\u0000]")


def keep_raw(rows: DataFrame) -> DataFrame:
    """Keep the raw row only where there is a reason: good rows are shuffled without it."""
    return rows.withColumn("raw", F.when(F.col("reason").isNotNull(), F.col("raw")))


def split_rejected(rows: DataFrame, table: str, columns: tuple[str, ...]) -> tuple[DataFrame, DataFrame]:
    """Split tagged rows into (good with `columns`, rejected as (table, row_hash, reason, row), each once)."""
    good = rows.where(F.col("reason").isNull()).select(*columns)
    row = F.coalesce(F.col("raw"), F.to_json(F.struct(*columns), {"ignoreNullFields": "false"}))
    rejected = rows.where(F.col("reason").isNotNull()).select(
        F.lit(table).alias("table"), F.sha2(row, 256).alias("row_hash"), F.col("reason"), row.alias("row")
    )
    return good, rejected.dropDuplicates(["table", "row_hash", "reason"])


def _with_row_reasons(
    interactions: DataFrame, rating_range: tuple[float, float] | None, now: dt.datetime | None
) -> DataFrame:
    """Return the five typed columns, `raw` and the `reason` that a row shows by itself."""
    types = {column.name: column.dataType for column in interactions.schema}
    time, rating = F.col("event_time"), F.col("rating").cast("string")
    rows = interactions.select(
        "user_id",
        "item_id",
        parsed_time(time, types["event_time"]).alias("event_time"),
        F.nullif(F.trim(rating), F.lit("")).try_cast("double").alias("rating"),
        "event_type",
        (
            F.col("raw") if "raw" in types else F.to_json(F.struct(*COLUMNS), {"ignoreNullFields": "false"})
        ).alias("raw"),
        (F.col("problem") if "problem" in types else F.lit(None).cast("string")).alias("problem"),
        F.coalesce(F.trim(time.cast("string")), F.lit("")).alias("_time"),
        F.coalesce(F.trim(rating), F.lit("")).alias("_rating"),
    )
    low, high = rating_range or (float("-inf"), float("inf"))
    # NaN is greater than every number for Spark, also than infinity.
    wrong_rating = (F.col("_rating") != "") & (
        F.col("rating").isNull() | F.isnan("rating") | ~F.col("rating").between(low, high)
    )
    user, item = F.col("user_id"), F.col("item_id")
    reason = (
        F.when(F.col("problem").isNotNull(), F.col("problem"))
        .when(user.isNull(), "null_user_id")
        .when(empty(user), "empty_user_id")
        .when(item.isNull(), "null_item_id")
        .when(empty(item), "empty_item_id")
        .when(F.col("_time") == "", "null_time")
        .when(F.col("event_time").isNull(), "unparsable_time")
    )
    if now is not None:
        moment = now if now.tzinfo else now.replace(tzinfo=dt.timezone.utc)
        reason = reason.when(F.col("event_time") > F.lit(moment), "time_after_import")
    rows = rows.withColumn("reason", reason.when(wrong_rating, "rating_out_of_range"))
    return keep_raw(rows).select(*COLUMNS, "raw", "reason")

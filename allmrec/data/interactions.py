"""Interactions: what is wrong with a row, which of the good ones count, and the knowledge cut-off."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.config import SequencesConfig
from allmrec.data.columns import is_blank, midnight, parsed_time
from allmrec.data.rejection import keep_raw, raw_row, reader_problem, reject_repeats

COLUMNS = ("user_id", "item_id", "event_time", "rating", "event_type")


def tagged(
    interactions: DataFrame,
    items: DataFrame | None,
    rating_range: tuple[float, float] | None = None,
    now: dt.datetime | None = None,
) -> DataFrame:
    """Return every row with the table's five columns and types, `raw` and `reason` (see `rejection`).

    `interactions` has the columns of the table, or those of a reader of files: then every column may be text,
    and `raw` and `problem` (the reader's reason) are there too. `items` is the catalogue (item_id), None to
    accept any item; `now` (UTC where it has no zone) the time of the import, None to accept any time.

    Reasons, the first that applies: the reader's, null_user_id, empty_user_id, null_item_id, empty_item_id,
    null_time, unparsable_time, time_after_import, rating_out_of_range (also what is no number),
    item_not_in_catalogue, exact_duplicate (all but one of equal rows). Costs one join and one window over the
    log.
    """
    rows = _with_row_reasons(interactions, rating_range, now)
    if items is not None:
        rows = _without_unknown_items(rows, items)
    # Equal rows are interchangeable, so that any order numbers them alike.
    return reject_repeats(rows, COLUMNS, ["item_id"], "exact_duplicate").select(*COLUMNS, "raw", "reason")


def counted(good: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return the good interactions that count: of the event types, with no rating or at least the minimum."""
    if settings.event_types is not None:
        good = good.where(F.col("event_type").isin(*settings.event_types))
    if settings.min_rating is not None:
        good = good.where(F.col("rating").isNull() | (F.col("rating") >= settings.min_rating))
    return good


def before(interactions: DataFrame, run_date: dt.date) -> DataFrame:
    """Return what happened before midnight (UTC) at the start of `run_date`, the knowledge cut-off."""
    return interactions.where(F.col("event_time") < F.lit(midnight(run_date)))


def before_or_without_time(interactions: DataFrame, run_date: dt.date) -> DataFrame:
    """Return what happened before midnight (UTC) at the start of `run_date`, or has no time."""
    is_before = F.col("event_time") < F.lit(midnight(run_date))
    return interactions.where(F.coalesce(is_before, F.lit(True)))


def _with_row_reasons(
    interactions: DataFrame, rating_range: tuple[float, float] | None, now: dt.datetime | None
) -> DataFrame:
    """Return the five typed columns, `raw` and the `reason` that a row shows by itself."""
    time, rating = F.col("event_time"), F.col("rating").cast("string")
    rows = interactions.select(
        "user_id",
        "item_id",
        parsed_time(time, interactions.schema["event_time"].dataType).alias("event_time"),
        F.nullif(F.trim(rating), F.lit("")).try_cast("double").alias("rating"),
        "event_type",
        raw_row(interactions, COLUMNS).alias("raw"),
        reader_problem(interactions).alias("problem"),
        F.coalesce(F.trim(time.cast("string")), F.lit("")).alias("_time_text"),
        F.coalesce(F.trim(rating), F.lit("")).alias("_rating_text"),
    )
    reason = F.when(F.col("problem").isNotNull(), F.col("problem"))
    for name in ("user_id", "item_id"):
        reason = reason.when(F.col(name).isNull(), f"null_{name}").when(
            is_blank(F.col(name)), f"empty_{name}"
        )
    reason = reason.when(F.col("_time_text") == "", "null_time")
    reason = reason.when(F.col("event_time").isNull(), "unparsable_time")
    if now is not None:
        import_time = now if now.tzinfo else now.replace(tzinfo=dt.timezone.utc)
        reason = reason.when(F.col("event_time") > F.lit(import_time), "time_after_import")
    reason = reason.when(_is_wrong_rating(rating_range), "rating_out_of_range")
    return keep_raw(rows.withColumn("reason", reason)).select(*COLUMNS, "raw", "reason")


def _is_wrong_rating(rating_range: tuple[float, float] | None) -> Column:
    """Return whether a rating is there that is no number or lies outside the range.

    Without a range every number is inside; NaN is none.
    """
    low, high = rating_range or (float("-inf"), float("inf"))
    # NaN is greater than every number for Spark, also than infinity.
    is_number = F.col("rating").isNotNull() & ~F.isnan("rating")
    return (F.col("_rating_text") != "") & ~(is_number & F.col("rating").between(low, high))


def _without_unknown_items(rows: DataFrame, items: DataFrame) -> DataFrame:
    """Give rows whose item is not in the catalogue that reason, where they have no other."""
    known = items.select("item_id").distinct().withColumn("_known", F.lit(True))
    is_unknown = F.col("reason").isNull() & F.col("_known").isNull()
    reason = F.when(is_unknown, "item_not_in_catalogue").otherwise(F.col("reason"))
    return rows.join(known, "item_id", "left").withColumn("reason", reason).drop("_known")

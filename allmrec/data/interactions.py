"""Interactions: faults of rows, events that count, and the knowledge cut-off."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.config import SequencesConfig, ValueRules
from allmrec.data.columns import is_blank, midnight
from allmrec.data.rejection import keep_raw, raw_row, reader_problem, reject_repeats
from allmrec.data.values import typed

COLUMNS = ("user_id", "item_id", "event_time", "rating", "event_type")


def tagged(
    interactions: DataFrame,
    items: DataFrame | None,
    rating_range: tuple[float, float] | None = None,
    now: dt.datetime | None = None,
) -> DataFrame:
    """Return every row with typed columns, `raw` and `reason`.

    See `rejection`. `interactions` has the columns of the table, in its types or others that
    `values.can_read`, and maybe `raw` and `problem` (the reader's reason). `items` is the catalogue
    (item_id), None to accept any item; `now` (UTC by default) is the time of the import, None to accept any
    time.

    Reasons, the first that applies: the reader's and those of `values`, null_user_id, empty_user_id,
    null_item_id, empty_item_id, null_time, time_after_import, rating_out_of_range (also NaN),
    item_not_in_catalogue, exact_duplicate (all but one of equal rows). Costs one join and one window over the
    log.
    """
    rows = _with_row_reasons(interactions, rating_range, now)
    if items is not None:
        rows = _without_unknown_items(rows, items)
    # Equal rows are interchangeable, so that any order numbers them alike.
    return reject_repeats(rows, COLUMNS, ["item_id"], "exact_duplicate").select(*COLUMNS, "raw", "reason")


def counted(good: DataFrame, settings: SequencesConfig) -> DataFrame:
    """Return the good interactions that count, by event type and minimal rating.

    Interactions without a rating count.
    """
    if settings.event_types is not None:
        good = good.where(F.col("event_type").isin(*settings.event_types))
    if settings.min_rating is not None:
        good = good.where(F.col("rating").isNull() | (F.col("rating") >= settings.min_rating))
    return good


def rows_before(interactions: DataFrame, run_date: dt.date) -> DataFrame:
    """Return the rows before midnight (UTC) of `run_date`, the knowledge cut-off."""
    return interactions.where(F.col("event_time") < F.lit(midnight(run_date)))


def rows_before_or_untimed(interactions: DataFrame, run_date: dt.date) -> DataFrame:
    """Return the rows before midnight (UTC) of `run_date` or without a time."""
    is_before = F.col("event_time") < F.lit(midnight(run_date))
    return interactions.where(F.coalesce(is_before, F.lit(True)))


def _with_row_reasons(
    interactions: DataFrame, rating_range: tuple[float, float] | None, now: dt.datetime | None
) -> DataFrame:
    """Return typed columns, `raw` and the row's own `reason`."""
    rows = typed(interactions, "interactions", ValueRules(), trusts_texts=True)
    rows = rows.select(*COLUMNS, raw_row(rows, COLUMNS).alias("raw"), reader_problem(rows).alias("problem"))
    reason = F.when(F.col("problem").isNotNull(), F.col("problem"))
    for name in ("user_id", "item_id"):
        reason = reason.when(F.col(name).isNull(), f"null_{name}").when(
            is_blank(F.col(name)), f"empty_{name}"
        )
    reason = reason.when(F.col("event_time").isNull(), "null_time")
    if now is not None:
        import_time = now if now.tzinfo else now.replace(tzinfo=dt.timezone.utc)
        reason = reason.when(F.col("event_time") > F.lit(import_time), "time_after_import")
    reason = reason.when(_is_wrong_rating(rating_range), "rating_out_of_range")
    return keep_raw(rows.withColumn("reason", reason)).select(*COLUMNS, "raw", "reason")


def _is_wrong_rating(rating_range: tuple[float, float] | None) -> Column:
    """Return whether a rating is outside the range, as NaN always is."""
    low, high = rating_range or (float("-inf"), float("inf"))
    # Spark orders NaN above every number, infinity included.
    is_inside = ~F.isnan("rating") & F.col("rating").between(low, high)
    return F.col("rating").isNotNull() & ~is_inside


def _without_unknown_items(rows: DataFrame, items: DataFrame) -> DataFrame:
    """Reject good rows whose item is not in the catalogue."""
    known = items.select("item_id").distinct().withColumn("_known", F.lit(True))
    is_unknown = F.col("reason").isNull() & F.col("_known").isNull()
    reason = F.when(is_unknown, "item_not_in_catalogue").otherwise(F.col("reason"))
    return rows.join(known, "item_id", "left").withColumn("reason", reason).drop("_known")

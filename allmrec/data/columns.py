"""Columns as the tables hold them: times of any spelling, ids that are blank, rows as JSON."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

_YEAR_10000_SECONDS = 253_402_300_800
"""Unix time at which the year 10000 begins; milliseconds since 1970 are greater from 1978 on."""


def parsed_time(column: Column, kind: T.DataType) -> Column:
    """Return a column of type `kind` as a timestamp; null where it holds no time.

    A text or number is a time where it is Unix seconds, or an ISO date or time (UTC where no zone is given).
    Unix milliseconds are null too: read as seconds they would lie thousands of years ahead.
    """
    if isinstance(kind, T.TimestampType):
        return column
    if isinstance(kind, T.DateType | T.TimestampNTZType):
        return column.cast("timestamp")
    text = F.trim(column.cast("string"))
    seconds = text.try_cast("decimal(20,6)")
    in_range = F.when(F.abs(seconds) < _YEAR_10000_SECONDS, seconds)
    # Without a full date Spark would read a bare time as one of today.
    iso = F.when(text.rlike(r"^\d{4}-\d{1,2}-\d{1,2}"), text).try_cast("timestamp")
    from_seconds = F.timestamp_micros((in_range * 1_000_000).cast("bigint"))
    return F.when(seconds.isNotNull(), from_seconds).otherwise(iso)


def is_blank(identifier: Column) -> Column:
    """Return whether an id holds nothing but white space and zero bytes; null where the id is null."""
    return ~identifier.rlike(r"[^\s\u0000]")


def json_object(*columns: Column | str) -> Column:
    """Return the columns of a row as one JSON object in which nulls are written out."""
    return F.to_json(F.struct(*columns), {"ignoreNullFields": "false"})

"""Columns as the tables hold them: times of any spelling, ids that are blank, rows as JSON."""

from __future__ import annotations

from datetime import date, datetime, timezone

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

SECONDS_BELOW = 10**10
"""A smaller number is a time in Unix seconds: before the year 2286."""
MILLISECONDS_FROM, MILLISECONDS_BELOW = 10**11, 10**13
"""A number between them is a time in Unix milliseconds: from March 1973 to the year 2286."""


def parsed_time(column: Column, kind: T.DataType) -> Column:
    """Return a column of type `kind` as a timestamp; null where it holds no time.

    A text or number is a time where it is Unix seconds or milliseconds, told apart by its size, or an ISO
    date or time. Without a zone it is UTC. A number of neither size is null: what it counts is unclear.
    """
    if isinstance(kind, T.TimestampType):
        return column
    if isinstance(kind, T.DateType | T.TimestampNTZType):
        return column.cast("timestamp")
    if isinstance(kind, T.NumericType):
        return _from_number(column.try_cast("decimal(20,6)"))
    text = F.trim(column.cast("string"))
    number = text.try_cast("decimal(20,6)")
    # Without a full date Spark would read a bare time as one of today.
    iso = F.when(text.rlike(r"^\d{4}-\d{1,2}-\d{1,2}"), text).try_cast("timestamp")
    return F.when(number.isNotNull(), _from_number(number)).otherwise(iso)


def midnight(day: date) -> datetime:
    """Return the beginning of a day (UTC)."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


def may_be_before(column: Column, kind: T.DataType, day: date) -> Column | None:
    """Return a condition on a column of times as it lies in its table, which its reader can use to read less.

    It is true where `parsed_time` lies before midnight (UTC) of `day`, and where that is null; it may be true
    elsewhere. None where the type permits no such condition.
    """
    if isinstance(kind, T.NumericType):
        seconds = int(midnight(day).timestamp())
        in_milliseconds = (column >= SECONDS_BELOW) & (column < seconds * 1000)
        condition = (column < seconds) | in_milliseconds | (column >= MILLISECONDS_BELOW)
    elif isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType):
        condition = column < _start_of(day, kind)
    else:
        return None
    return condition | column.isNull()


def may_be_since(column: Column, kind: T.DataType, day: date) -> Column | None:
    """Return the like of `may_be_before` for the times from midnight (UTC) of `day` on.

    Where the time is null it may be false.
    """
    if isinstance(kind, T.NumericType):
        seconds = int(midnight(day).timestamp())
        return column.between(seconds, SECONDS_BELOW) | (column >= max(seconds * 1000, MILLISECONDS_FROM))
    if isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType):
        return column >= _start_of(day, kind)
    return None


def _start_of(day: date, kind: T.DataType) -> Column:
    """Return the beginning of a day (UTC) as a value of a type of dates or times."""
    if isinstance(kind, T.DateType):
        return F.lit(day)
    if isinstance(kind, T.TimestampNTZType):
        return F.lit(day.isoformat()).cast("timestamp_ntz")
    return F.lit(midnight(day))


def _from_number(number: Column) -> Column:
    """Return Unix seconds or milliseconds (decimal) as a timestamp; null where a number is neither."""
    size = F.abs(number)
    is_milliseconds = (size >= MILLISECONDS_FROM) & (size < MILLISECONDS_BELOW)
    micros = F.when(size < SECONDS_BELOW, number * 1_000_000).when(is_milliseconds, number * 1000)
    return F.timestamp_micros(micros.cast("bigint"))


def is_blank(identifier: Column) -> Column:
    """Return whether an id holds nothing but white space and zero bytes; null where the id is null."""
    return ~identifier.rlike(r"[^\s\u0000]")


def json_object(*columns: Column | str) -> Column:
    """Return the columns of a row as one JSON object in which nulls are written out."""
    return F.to_json(F.struct(*columns), {"ignoreNullFields": "false"})

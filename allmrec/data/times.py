"""Times in values: Unix numbers, ISO texts, or a configured format."""

from __future__ import annotations

from datetime import date

import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.data.columns import midnight

FIRST_SECOND = 315_532_800
"""The smallest number that is read as Unix seconds: 1980. Smaller numbers are counts of days, or dates."""
SECONDS_BELOW = 10**10
"""Numbers from `FIRST_SECOND` to this one are Unix seconds: before the year 2286."""
FIRST_MILLISECOND = FIRST_SECOND * 1000
MILLISECONDS_BELOW = 10**13
"""Numbers between the two are Unix milliseconds: from 1980 to the year 2286."""
_MICROSECONDS = {"s": 1_000_000.0, "ms": 1000.0, "us": 1.0, "ns": 0.001}
"""Microseconds in each unit of Unix numbers."""
_YEAR_10000 = 253_402_300_800_000_000
"""Microseconds from 1970 to the first time that Python cannot represent."""
_END_OF_BIGINT = 2**63
_NUMBER = "decimal(28,6)"
_ISO = r"^\d{4}-\d{1,2}-\d{1,2}"
_ABBREVIATED_ZONE = r"(?<![A-Za-z/_])(?!UTC$|GMT$)[A-Za-z]{2,5}$"
"""PST or CEST: Java reads some as a region with daylight time, others not at all."""


def parsed_time(column: Column, kind: T.DataType, time_format: str | None = None) -> Column:
    """Return a column of type `kind` as a timestamp. Null for unreadable values.

    Without a format, a text or number is a time if it is Unix seconds or milliseconds, by its size, or an ISO
    date or time. `time_format` is a unit of Unix numbers (s, ms, us, ns) or a pattern of strptime. Values
    that do not match a pattern, and texts beside a unit, are read as without a format. Times without a zone
    are UTC. Columns of dates and timestamps need no format.
    """
    if isinstance(kind, T.TimestampType):
        return column
    if isinstance(kind, T.DateType | T.TimestampNTZType):
        return column.cast("timestamp")
    is_number = isinstance(kind, T.NumericType)
    text = F.trim(column.cast("string"))
    number = (column if is_number else text).try_cast(_NUMBER)
    if time_format in _MICROSECONDS:
        time = _of_micros(number * F.lit(_MICROSECONDS[time_format]).cast("decimal(10,3)"))
        return time if is_number else F.when(number.isNotNull(), time).otherwise(_from_iso(text))
    time = _from_number(number)
    if not is_number:
        time = F.when(number.isNotNull(), time).otherwise(_from_iso(text))
    if time_format is None:
        return time
    digits = F.when(F.floor(number) == number, F.floor(number).cast("string"))
    return F.coalesce(_by_pattern(digits if is_number else text, time_format), time)


def may_be_before(
    column: Column, kind: T.DataType, day: date, time_format: str | None = None
) -> Column | None:
    """Return a condition that skips times from `day` on.

    The condition is true where `parsed_time` is before midnight (UTC) of `day` or null, and may be true
    elsewhere. None if type and format permit no such condition.
    """
    seconds = int(midnight(day).timestamp())
    if isinstance(kind, T.NumericType):
        if time_format in _MICROSECONDS:
            condition = column < _in_units(seconds, time_format)
            first_null = _in_units(_YEAR_10000 // 1_000_000, time_format)
            if first_null < _END_OF_BIGINT:
                condition = condition | (column >= first_null)
        elif time_format is not None:
            return None
        else:
            in_milliseconds = (column >= SECONDS_BELOW) & (column < seconds * 1000)
            condition = (column < seconds) | in_milliseconds | (column >= MILLISECONDS_BELOW)
    elif isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType):
        condition = column < _start_of(day, kind)
    else:
        return None
    return condition | column.isNull()


def may_be_since(
    column: Column, kind: T.DataType, day: date, time_format: str | None = None
) -> Column | None:
    """Return a filter that keeps times from `day` (UTC) on.

    The filter may keep earlier rows, and drop rows without a time. None if type and format permit no filter.
    """
    seconds = int(midnight(day).timestamp())
    if isinstance(kind, T.NumericType):
        if time_format in _MICROSECONDS:
            return column >= _in_units(seconds, time_format)
        if time_format is not None:
            return None
        return column.between(seconds, SECONDS_BELOW) | (column >= max(seconds * 1000, FIRST_MILLISECOND))
    if isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType):
        return column >= _start_of(day, kind)
    return None


def _in_units(seconds: int, unit: str) -> int:
    """Return Unix seconds in a unit of `_MICROSECONDS`."""
    return round(seconds * 1_000_000 / _MICROSECONDS[unit])


def _start_of(day: date, kind: T.DataType) -> Column:
    """Return midnight (UTC) of a day in a type of times."""
    if isinstance(kind, T.DateType):
        return F.lit(day)
    if isinstance(kind, T.TimestampNTZType):
        return F.lit(day.isoformat()).cast("timestamp_ntz")
    return F.lit(midnight(day))


def _from_number(number: Column) -> Column:
    """Return Unix seconds or milliseconds (decimal) as timestamps; null for other numbers."""
    is_seconds = (number >= FIRST_SECOND) & (number < SECONDS_BELOW)
    is_milliseconds = (number >= FIRST_MILLISECOND) & (number < MILLISECONDS_BELOW)
    return _of_micros(F.when(is_seconds, number * 1_000_000).when(is_milliseconds, number * 1000))


def _from_iso(text: Column) -> Column:
    """Return ISO dates and times as timestamps; null for other texts."""
    # Spark would read a bare time as a time of today.
    is_iso = text.rlike(_ISO) & ~text.rlike(_ABBREVIATED_ZONE)
    return F.when(is_iso, text).try_cast("timestamp")


def _of_micros(micros: Column) -> Column:
    """Return microseconds since 1970 (decimal) as timestamps; null from year 10,000 on."""
    return F.timestamp_micros(F.when(F.abs(micros) < _YEAR_10000, F.floor(micros)).cast("bigint"))


def _by_pattern(text: Column, pattern: str) -> Column:
    """Return texts of a pattern of strptime as timestamps; null for others."""

    def parsed(texts: pd.Series) -> pd.Series:
        return pd.to_datetime(texts, format=pattern, errors="coerce", utc=True)

    return F.pandas_udf(parsed, T.TimestampType())(text)  # type: ignore[call-overload]

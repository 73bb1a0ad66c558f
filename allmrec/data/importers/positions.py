"""Synthetic times of interactions that have an order and no time."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

FIRST_DAY = "2000-01-01"
"""The day (UTC) that begins at position 0."""
SAID = f"an order without times: synthetic times from {FIRST_DAY} UTC, one minute a position"
MINUTES_BELOW = 10_000_000
"""Positions below it are a minute apart, up to January 2019. Later ones are a microsecond apart, so that the
rows of a long log, and Unix times that are taken for an order, lie before today."""
POSITIONS_BELOW = 10**14
"""A position from this one on would lie after today."""
_MINUTE = 60_000_000


def time_of(position: Column) -> Column:
    """Return the time for each position (double); null for one that is too large, negative or no number.

    The same position has the same time in every import.
    """
    is_known = (position >= 0) & (position < POSITIONS_BELOW)
    micros = F.when(position < MINUTES_BELOW, position * _MINUTE).otherwise(
        F.lit(float(MINUTES_BELOW * _MINUTE)) + position - MINUTES_BELOW
    )
    first = F.unix_micros(F.lit(FIRST_DAY).cast("timestamp"))
    return F.timestamp_micros(first + F.when(is_known, micros).cast("bigint"))

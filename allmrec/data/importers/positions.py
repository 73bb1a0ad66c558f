"""Synthetic times of interactions with an order but no time."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

FIRST_DAY = "2000-01-01"
"""The day (UTC) whose midnight is position 0."""
SAID = f"an order without times: synthetic times from {FIRST_DAY} UTC, one minute a position"
MINUTES_BELOW = 10_000_000
"""Earlier positions are a minute apart, up to January 2019. Later ones are a microsecond apart.

Long logs, and Unix times that are taken for an order, are then before today.
"""
POSITIONS_BELOW = 10**14
"""A position from this one on would be after today."""
_MINUTE = 60_000_000


def time_of(position: Column) -> Column:
    """Return the time of each position (double); null for an invalid one.

    Too large and negative positions are invalid. A position has the same time in every import.
    """
    is_known = (position >= 0) & (position < POSITIONS_BELOW)
    micros = F.when(position < MINUTES_BELOW, position * _MINUTE).otherwise(
        F.lit(float(MINUTES_BELOW * _MINUTE)) + position - MINUTES_BELOW
    )
    first = F.unix_micros(F.lit(FIRST_DAY).cast("timestamp"))
    return F.timestamp_micros(first + F.when(is_known, micros).cast("bigint"))

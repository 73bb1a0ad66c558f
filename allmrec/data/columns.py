"""Columns of tables: midnights, blank ids, rows as JSON."""

from __future__ import annotations

from datetime import date, datetime, timezone

from pyspark.sql import Column
from pyspark.sql import functions as F


def midnight(day: date) -> datetime:
    """Return the first moment of a day (UTC)."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


def is_blank(identifier: Column) -> Column:
    """Return whether an id has only white space and zero bytes. Null for null."""
    return ~identifier.rlike(r"[^\s\u0000]")


def json_object(*columns: Column | str) -> Column:
    """Return the columns of a row as a JSON object, nulls included."""
    return F.to_json(F.struct(*columns), {"ignoreNullFields": "false"})

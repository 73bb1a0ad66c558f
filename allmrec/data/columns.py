"""Columns as the tables hold them: midnights, ids that are blank, rows as JSON."""

from __future__ import annotations

from datetime import date, datetime, timezone

from pyspark.sql import Column
from pyspark.sql import functions as F


def midnight(day: date) -> datetime:
    """Return the beginning of a day (UTC)."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


def is_blank(identifier: Column) -> Column:
    """Return whether an id holds nothing but white space and zero bytes; null where the id is null."""
    return ~identifier.rlike(r"[^\s\u0000]")


def json_object(*columns: Column | str) -> Column:
    """Return the columns of a row as one JSON object in which nulls are written out."""
    return F.to_json(F.struct(*columns), {"ignoreNullFields": "false"})

"""The outcome of an import: good and rejected rows, times and ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.data.rejection import rejected_row

EXAMPLE_CHARACTERS = 200
"""How many characters of a rejected row are shown."""
_NUM_IDS = 3
_REPEATS = ("exact_duplicate", "repeated_key", "duplicate_item_id")
"""Reasons that need no example."""
_ADVICE = {
    "not_csv": "a row of another width, or with an open quote; importing.csv sets the form of values",
    "not_utf8": "importing.csv.encoding names another encoding, such as windows-1252",
    "unparsable_time": "importing.time_format names another format, such as %Y%m%d",
    "rating_out_of_range": "sequences.rating_range",
    "null_user_id": "importing.null_words are read as nothing",
    "null_item_id": "importing.null_words are read as nothing",
}
"""Reason → settings to check."""


class Rejected(NamedTuple):
    """Rows that were rejected for one reason."""

    reason: str
    number: int
    example: str
    """One of the rows, as it was read."""


class Outcome(NamedTuple):
    """Good and rejected rows of a file."""

    num_good: int
    rejected: list[Rejected]
    """In the order of the reasons."""

    @property
    def num_read(self) -> int:
        """Return the number of all rows."""
        return self.num_good + sum(one.number for one in self.rejected)

    @classmethod
    def of(cls, rows: DataFrame) -> Outcome:
        """Count tagged rows by their reason."""
        columns = [name for name in rows.columns if name not in ("raw", "reason")]
        row = F.when(F.col("reason").isNotNull(), rejected_row(columns))
        groups = rows.groupBy("reason").agg(F.count(F.lit(1)), F.min(row)).collect()
        good = [number for reason, number, _ in groups if reason is None]
        rejected = [
            Rejected(reason, number, " ".join(raw.split())[:EXAMPLE_CHARACTERS])
            for reason, number, raw in groups
            if reason is not None
        ]
        return cls(sum(good), sorted(rejected))

    def examples(self) -> list[str]:
        """Return a line for every reason that needs a look."""
        lines = []
        for one in self.rejected:
            advice = f" ({_ADVICE[one.reason]})" if one.reason in _ADVICE else ""
            if one.reason not in _REPEATS:
                lines.append(f"{one.reason}, such as {one.example}{advice}")
        return lines


def said_of_ids(rows: DataFrame, known: DataFrame) -> str:
    """Return examples of a log's unknown item ids and the known ones."""
    unknown = rows.where("reason = 'item_not_in_catalogue'")
    sides = []
    for ids in (unknown, known):
        examples = ids.select("item_id").distinct().orderBy("item_id").limit(_NUM_IDS).collect()
        sides.append(", ".join(repr(row[0]) for row in examples) or "none")
    return f"most item ids are not in the catalogue: the log has {sides[0]}, the catalogue has {sides[1]}"


def said_of_times(good: DataFrame, num_good: int, report: Callable[[str], None]) -> int:
    """Report first and last time and the number of tied events. Return that number.

    An event is tied if its user has another item at the same time, so that the order of the two is unknown.
    """
    midnight = F.date_trunc("DAY", F.min("event_time"))
    moments = good.groupBy("user_id", "event_time").agg(
        F.count(F.lit(1)).alias("num_events"),
        (F.min("item_id") != F.max("item_id")).alias("is_tied"),
        (midnight == F.min("event_time")).alias("is_midnight"),
    )
    first, last, num_tied, is_dates = moments.agg(
        F.min("event_time").cast("string"),
        F.max("event_time").cast("string"),
        F.coalesce(F.sum(F.when(F.col("is_tied"), F.col("num_events"))), F.lit(0)),
        F.every("is_midnight"),
    ).collect()[0]
    days = ", dates without a time of day" if is_dates else ""
    report(f"interactions: times from {first} to {last} UTC{days}")
    if num_tied:
        report(
            f"interactions: {num_tied:,} of {num_good:,} have the time of another item of their user, so "
            "their order is unknown: user sequences order them by a hash"
        )
    return int(num_tied)

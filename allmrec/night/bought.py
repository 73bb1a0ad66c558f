"""The histories of a night, and what users bought in the days before its run date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.data.columns import midnight


@dataclass(frozen=True)
class Bought:
    """The sequences of a run date, and the days before it that are lately."""

    sequences: DataFrame
    """Rows of `user_sequences`."""
    run_date: date
    num_days: int
    """Days before the run date; 0: nothing was bought lately."""

    def with_histories(self, lists: DataFrame) -> DataFrame:
        """Return the lists (user_id, …) with `history` and `is_recent`, arrays of equal length.

        `history` has the item ids of a user's sequence, oldest first, `is_recent` whether the item was bought
        lately. Users without a sequence have empty arrays.
        """
        is_recent = F.transform("event_times", self._is_recent)
        histories = self.sequences.select(
            "user_id", F.col("item_ids").alias("history"), is_recent.alias("is_recent")
        )
        return lists.join(histories, "user_id", "left").withColumns(
            {
                "history": F.coalesce("history", F.array().cast("array<string>")),
                "is_recent": F.coalesce("is_recent", F.array().cast("array<boolean>")),
            }
        )

    def items(self) -> DataFrame | None:
        """Return (user_id, item_id) of what was bought lately; None where nothing can be."""
        if not self.num_days:
            return None
        events = F.arrays_zip(F.col("item_ids").alias("item_id"), F.col("event_times").alias("event_time"))
        recent = F.filter(events, lambda event: self._is_recent(event["event_time"]))
        return self.sequences.select("user_id", F.inline(recent)).select("user_id", "item_id")

    def _is_recent(self, event_time: Column) -> Column:
        """Return whether an event was lately; an event at the first of the midnights was."""
        first = self.run_date - timedelta(days=self.num_days)
        return F.lit(self.num_days > 0) & (event_time >= F.lit(midnight(first)))

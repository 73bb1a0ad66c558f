"""The input tables at fixed versions: what the steps of a run read of log, catalogue and users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.interactions import before
from allmrec.data.rejection import split_rejected
from allmrec.data.user_sequences import seen_items
from allmrec.errors import InputError
from allmrec.runtime.context import Context


class CheckedLog(NamedTuple):
    """The log before a cut-off and the catalogue, parted into good and rejected rows."""

    interactions: DataFrame
    """Good interactions."""
    items: DataFrame
    """Good items."""
    rejected: DataFrame
    """Rejected rows of both tables."""


@dataclass(frozen=True)
class Inputs:
    """The input tables of a run, each at one version, however the tables grow while the run works."""

    context: Context
    versions: Mapping[str, int]
    """Version by table; without `users` where there is no such table."""

    @classmethod
    def newest(cls, context: Context) -> Inputs:
        """Return the tables as they stand now; raises TableError where interactions or items are missing."""
        names = ["interactions", "items", *(["users"] if context.tables.exists("users") else [])]
        return cls(context, {name: context.tables.version(name) for name in names})

    def with_newest_items(self) -> Inputs:
        """Return the same inputs with the catalogue as it stands now."""
        return replace(self, versions={**self.versions, "items": self.context.tables.version("items")})

    def interactions(self) -> DataFrame:
        """Return the raw log, bad rows included."""
        return self._read("interactions")

    def items(self) -> DataFrame:
        """Return the raw catalogue, bad rows included."""
        return self._read("items")

    def users(self) -> DataFrame | None:
        """Return the table of users, or None where there is none."""
        return self._read("users") if "users" in self.versions else None

    def catalogue(self) -> tuple[DataFrame, DataFrame]:
        """Return (good items, rejected rows); the cleaning is done once per run and version."""
        name = f"items at version {self.versions['items']}"
        rows = self.context.frames.keep_once(name, lambda: catalogue.tagged_items(self.items()))
        return split_rejected(rows, "items", catalogue.COLUMNS)

    def good_interactions(self, run_date: date, keep: Callable[[DataFrame], DataFrame]) -> CheckedLog:
        """Return the log before midnight (UTC) of run_date and the catalogue; `keep` caches the log."""
        items, bad_items = self.catalogue()
        everything = self.interactions()
        # Rows without a time lie before no cut-off; they are looked at so that they can be rejected.
        log = before(everything, run_date).unionByName(everything.where(F.col("event_time").isNull()))
        rows = keep(events.tagged(log, items, self.context.config.importing.rating_range))
        good, bad = split_rejected(rows, "interactions", events.COLUMNS)
        return CheckedLog(good, items, bad.unionByName(bad_items))

    def seen(self, run_date: date) -> DataFrame:
        """Return (user_id, seen array<string>): all items of the user in the raw log before `run_date`.

        Rejected rows and events that do not count are included: what was seen was seen.
        """
        return seen_items(before(self.interactions(), run_date))

    def _read(self, name: str) -> DataFrame:
        return self.context.tables.read(name, self.versions[name])


def day_after_last_event(inputs: Inputs) -> date:
    """Return the first run_date (UTC) that sees every event of the log.

    Events in the future of this machine's clock do not count. Raises InputError where the log has no event
    with a time.
    """
    now = datetime.now(timezone.utc)
    past = inputs.interactions().where(F.col("event_time") <= F.lit(now))
    last = past.agg(F.max("event_time").cast("date")).first()
    if last is None or last[0] is None:
        raise InputError(
            "interactions: no event with a time, expected at least one; import a log first (allmrec import …)"
        )
    return last[0] + timedelta(days=1)

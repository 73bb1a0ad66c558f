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
from allmrec.runtime.runs import latest


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

    @classmethod
    def of_date(cls, context: Context, run_date: date) -> Inputs:
        """Return the newest log, with catalogue and users as they stood at the end of `run_date` (UTC).

        For a night of today that is how they stand now; for a past date it is what their history still has,
        and how they stand now, with a warning, where it does not reach back so far. Raises TableError where
        interactions or items are missing.
        """
        newest = cls.newest(context)
        return replace(newest, versions={**newest.versions, **_at_end_of(run_date, newest)})

    @classmethod
    def pinned(cls, context: Context, step: str, run_date: date) -> Inputs:
        """Return the versions that the newest run of this step and date read, whatever became of it.

        So a live table does not undo a night, nor a killed training: what was appended since is read with
        `--refresh`, or by a date's first run, as `of_date` says.
        """
        row = None if context.options.refresh else latest(context, step, run_date)
        if row is not None and row.input_versions:
            return cls(context, dict(row.input_versions))
        return cls.of_date(context, run_date)

    def with_items_of(self, run_date: date) -> Inputs:
        """Return the same inputs with the catalogue as `of_date` reads it now."""
        versions = {"items": self.context.tables.version("items")}
        current = replace(self, versions={**self.versions, **versions})
        return replace(current, versions={**current.versions, **_at_end_of(run_date, current, ("items",))})

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


def _at_end_of(run_date: date, newest: Inputs, names: tuple[str, ...] = ("items", "users")) -> dict[str, int]:
    """Return the versions of tables without event times at the end of run_date, where that is past."""
    context, tables = newest.context, newest.context.tables
    end = datetime.combine(run_date + timedelta(days=1), datetime.min.time(), timezone.utc)
    if end > datetime.now(timezone.utc):
        return {}
    found = {name: tables.version_at(name, end) for name in names if name in newest.versions}
    for name in (name for name, version in found.items() if version is None):
        context.warn_once(
            f"{name}: its history does not reach back to a past run date; it is read as it stands now"
        )
    return {name: version for name, version in found.items() if version is not None}


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

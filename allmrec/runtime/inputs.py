"""The input tables at fixed versions: log, catalogue, users."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.columns import midnight
from allmrec.data.in_place import other_columns, read_in_place
from allmrec.data.interactions import rows_before_or_untimed
from allmrec.data.rejection import reject_known, split_rejected
from allmrec.errors import ConfigError, InputError, TableError
from allmrec.runtime.context import Context
from allmrec.runtime.night import Finished, Night, Step
from allmrec.runtime.runs import erased_versions, is_same_table
from allmrec.tables.schemas import ITEM_VALUES
from allmrec.tables.sources import Source

NAMES = ("interactions", "items", "users")
MAX_ROW = 300
"""How many characters of a rejected row an error quotes."""


class CheckedLog(NamedTuple):
    """Log before a cut-off and catalogue: good and rejected rows."""

    rows: DataFrame
    """All interactions, good and rejected."""
    interactions: DataFrame
    """Good interactions."""
    items: DataFrame
    """Good items."""
    rejected: DataFrame
    """Rejected rows of both tables."""


@dataclass(frozen=True)
class Inputs:
    """The input tables of a run, each at one version."""

    context: Context
    versions: Mapping[str, int]
    """Version by `Source.key`; without `users` if that table is missing.

    A table without versions is read as it is at the time. Its number is below 0: minus the microseconds since
    1970 when the date's first run read it.
    """
    table_ids: Mapping[str, str]
    """Delta's id of every table with versions, by `Source.key`, because a version belongs to one table.

    Empty in records of older versions of this program.
    """

    @classmethod
    def of_step(cls, step: Finished) -> Inputs:
        """Return the tables at the versions that a step has read."""
        versions = step.row.input_versions
        ids = step.row.table_ids or {}
        return cls(step.night.context, versions, {key: ids[key] for key in versions if key in ids})

    @classmethod
    def newest(cls, context: Context) -> Inputs:
        """Return the tables at their newest versions.

        Raises TableError where interactions or items are missing, or a table lacks configured columns, and
        ConfigError where the settings do not fit a table.
        """
        sources = [one for one in sources_of(context) if one.name != "users" or one.exists()]
        versions = {source.key: _newest_version(context, source) for source in sources}
        inputs = cls(context, versions, _ids_of(sources))
        for source in sources:
            inputs._read(source.name)
        return inputs

    @classmethod
    def of_date(cls, night: Night) -> Inputs:
        """Return the newest log, with catalogue and users of the run date.

        For today these are the newest versions. For a past date they are those in the tables' history, or,
        with a warning, the newest if the history begins later. Raises the errors of `newest`.
        """
        newest = cls.newest(night.context)
        return replace(newest, versions={**newest.versions, **_at_end_of(night.run_date, newest)})

    @classmethod
    def pinned(cls, night: Night, step: str) -> Inputs:
        """Return the versions that the newest run of the date's step read.

        A rerun reads the versions that its first run pinned, so that later appends change neither a night nor
        a killed training. A rerun reads the newest versions with `--refresh`, and if a table is another one
        than before: the configuration names another, or another was made at the same place. Versions older
        than a user's erasure are replaced by the version that the erasure wrote.
        """
        context = night.context
        row = None if context.options.refresh else night.latest(step)
        sources = {source.key: source for source in sources_of(context)}
        if row is None or not row.input_versions or not set(row.input_versions) <= set(sources):
            return cls.of_date(night)
        own = [sources[key] for key in row.input_versions]
        table_ids = _ids_of(own)
        for source in own:
            if not is_same_table(row, source.key, table_ids):
                context.report(
                    f"{step} {night.run_date}: {source.place} is another table than the date's last run "
                    "read, so the newest versions are read"
                )
                return cls.of_date(night)
        erased = erased_versions(night.records(), table_ids)
        pinned = row.input_versions.items()
        versions = {key: max(version, erased.get(key, version)) for key, version in pinned}
        return cls(context, versions, table_ids)

    def with_current(self, run_date: date, names: tuple[str, ...]) -> Inputs:
        """Return the same inputs with some of catalogue and users as `of_date` reads them now."""
        sources = [source_of(self.context, name) for name in names]
        versions = {source.key: _newest_version(self.context, source) for source in sources}
        current = replace(
            self,
            versions={**self.versions, **versions},
            table_ids={**self.table_ids, **_ids_of(sources)},
        )
        return replace(current, versions={**current.versions, **_at_end_of(run_date, current, names)})

    def interactions(self) -> DataFrame:
        """Return the raw log, with bad rows."""
        return self._read("interactions")

    def interactions_between(self, since: date, before: date) -> DataFrame:
        """Return the raw log between the midnights (UTC) of two dates."""
        log = self._read("interactions", before, since)
        return events.rows_before(log, before).where(F.col("event_time") >= F.lit(midnight(since)))

    def items(self) -> DataFrame:
        """Return the raw catalogue, with bad rows."""
        return self._read("items")

    def users(self) -> DataFrame | None:
        """Return the table of users, or None if it is missing."""
        source = source_of(self.context, "users")
        return None if source.is_own and source.key not in self.versions else self._read("users")

    def catalogue(self) -> tuple[DataFrame, DataFrame]:
        """Return (good items, rejected rows), cleaned once per run and version."""
        name = f"items at version {self._version(source_of(self.context, 'items'))}"
        rows = self.context.frames.keep_once(name, lambda: catalogue.tagged_items(self.items()))
        return split_rejected(rows, "items", catalogue.COLUMNS)

    def items_to_show(self, columns: Sequence[str]) -> DataFrame:
        """Return the good items with `item`: these columns of their table, as names and texts.

        `item` is null without columns. Raises ConfigError where the table lacks a column.
        """
        if not columns:
            return self.catalogue()[0].withColumn("item", F.lit(None).cast(ITEM_VALUES))
        source = source_of(self.context, "items")
        version = self._version(source)
        rows = read_in_place(source, version if version >= 0 else None, shown=columns)
        good, _ = split_rejected(catalogue.tagged_items(rows), "items", (*catalogue.COLUMNS, "item"))
        return good

    def whole(self, name: str) -> DataFrame:
        """Return a table with `item`, a struct of its own columns (`as_ours`)."""
        source = source_of(self.context, name)
        version = self._version(source)
        return read_in_place(source, version if version >= 0 else None, whole=True)

    def item_columns(self, names: Sequence[str]) -> DataFrame:
        """Return item_id and columns of the table of items, ours or not; see `other_columns`."""
        source = source_of(self.context, "items")
        version = self._version(source)
        return other_columns(source, version if version >= 0 else None, names)

    def good_interactions(self, run_date: date, keep: Callable[[DataFrame], DataFrame]) -> CheckedLog:
        """Return the checked log before midnight (UTC) of run_date; `keep` caches it."""
        return self.checked(self.log_to_check(run_date), keep)

    def log_to_check(self, run_date: date) -> DataFrame:
        """Return the raw log before run_date, and rows without a time.

        Rows without a time are read so that they can be rejected.
        """
        return rows_before_or_untimed(self._read("interactions", run_date), run_date)

    def checked(
        self,
        log: DataFrame,
        keep: Callable[[DataFrame], DataFrame],
        known: DataFrame | None = None,
    ) -> CheckedLog:
        """Return good and rejected rows of log and catalogue.

        `keep` caches the tagged log. Good rows that are also in `known` (`events.COLUMNS`) are rejected as
        repeats.
        """
        items, bad_items = self.catalogue()
        rows = events.tagged(log, items, self.context.config.sequences.rating_range)
        rows = keep(rows if known is None else reject_known(rows, known, events.COLUMNS, "exact_duplicate"))
        good, bad = split_rejected(rows, "interactions", events.COLUMNS)
        return CheckedLog(rows, good, items, bad.unionByName(bad_items))

    def require_good_rows(self, log: CheckedLog) -> None:
        """Raise InputError where every row of log or catalogue is rejected.

        An empty log is valid. Rejected rows without a time count only if the whole log has no time.
        """
        for name, good in (("items", log.items), ("interactions", log.interactions)):
            rejected = log.rejected.where(F.col("table") == name)
            if not good.isEmpty() or rejected.isEmpty():
                continue
            counts = rejected.groupBy("reason").count().orderBy(F.desc("count"), "reason").collect()
            if {row["reason"] for row in counts} == {"null_time"} and self._has_times():
                continue
            reasons = ", ".join(f"{row['count']:,} × {row['reason']}" for row in counts)
            example = rejected.orderBy("row_hash").select("row").first()
            raise InputError(
                f"{name}: every row was rejected ({reasons}), expected good ones; the first is "
                f"{example[0][:MAX_ROW] if example else ''}; look at rejected_rows and at "
                f"tables.{name}.columns"
            )

    def _has_times(self) -> bool:
        """Return whether any row of the log has a time."""
        return not self.interactions().where(F.col("event_time").isNotNull()).isEmpty()

    def _read(self, name: str, before: date | None = None, since: date | None = None) -> DataFrame:
        """Return a table at its version; see `read_in_place`."""
        source = source_of(self.context, name)
        version = self._version(source)
        return read_in_place(source, version if version >= 0 else None, before, since)

    def _version(self, source: Source) -> int:
        """Return the version of a table.

        Raises ConfigError where the date's run read a table of another name, TableError where another table
        has replaced it.
        """
        if source.key not in self.versions:
            raise ConfigError(
                f"tables.{source.name}: {source.place}, but the date's sequences, or the training, read "
                f"{', '.join(self.versions)}; expected the same; run `allmrec sequences` for that date again"
            )
        known = self.table_ids.get(source.key)
        if known is not None and source.table_id() != known:
            raise TableError(
                f"{source.name}: the table at {source.place} was replaced by another one since the run whose "
                f"version {self.versions[source.key]} is asked, expected the same table; run `allmrec "
                "sequences` for that date, or `allmrec train`, again"
            )
        return self.versions[source.key]


def require_item_columns(context: Context) -> None:
    """Raise ConfigError where `items` lacks a column of `publish.item_columns` today."""
    columns = context.config.publish.item_columns
    if columns:
        source = source_of(context, "items")
        read_in_place(source, source.version(), shown=columns)


def step_of_sequences(night: Night, inputs: Inputs) -> Step:
    """Return the step that makes a date's sequences from these inputs."""
    return night.step("sequences", versions=dict(inputs.versions), table_ids=dict(inputs.table_ids))


def source_of(context: Context, name: str) -> Source:
    """Return the source of one of `NAMES`."""
    return Source(context.tables, name, getattr(context.config.tables, name))


def sources_of(context: Context) -> list[Source]:
    """Return the sources of all `NAMES`."""
    return [source_of(context, name) for name in NAMES]


def _ids_of(sources: Iterable[Source]) -> dict[str, str]:
    """Return Delta's id of each table that has one, by `Source.key`."""
    found = {source.key: source.table_id() for source in sources}
    return {key: table_id for key, table_id in found.items() if table_id is not None}


def _newest_version(context: Context, source: Source) -> int:
    """Return a table's newest version; without versions, minus the microseconds since 1970.

    Warns about a table without versions.
    """
    version = source.version()
    if version is None:
        context.warn_once(
            f"{source.name}: {source.place} is no Delta table and has no versions: "
            "a rerun, or a past date, reads it as it stands then"
        )
        return -time.time_ns() // 1000
    return version


def _at_end_of(run_date: date, newest: Inputs, names: tuple[str, ...] = ("items", "users")) -> dict[str, int]:
    """Return the versions of catalogue and users after a past run_date."""
    context = newest.context
    end = midnight(run_date + timedelta(days=1))
    if end > datetime.now(timezone.utc):
        return {}
    found = {}
    for source in (source_of(context, name) for name in names):
        if newest.versions.get(source.key, -1) < 0:
            continue
        version = source.version_at(end)
        if version is None:
            context.warn_once(
                f"{source.name}: its history does not reach back to a past run date; "
                "it is read as it stands now"
            )
        else:
            found[source.key] = version
    return found


def day_after_last_event(inputs: Inputs) -> date:
    """Return the first run_date (UTC) whose cut-off is after every event.

    Events in the future of this machine's clock are ignored. Raises InputError where the log has no event
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

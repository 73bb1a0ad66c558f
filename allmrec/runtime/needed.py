"""Rows, bundles and versions that later runs may still need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from allmrec.bundle import Manifest, select_bundle
from allmrec.data.snapshot import snapshot_uri
from allmrec.errors import BundleError
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import NAMES
from allmrec.runtime.night import Night
from allmrec.runtime.runs import NIGHT, RunRow, as_run_row, erased_versions, sort_key
from allmrec.spark import filesystem
from allmrec.tables.maintenance import run_dates
from allmrec.tables.schemas import TABLES

HOURS_AT_WORK = 24
"""A step without an end that began earlier is counted as killed."""
STEPS = (*NIGHT, "train", "evaluate")


@dataclass(frozen=True)
class Needed:
    """Objects that maintenance and erasure must keep, by the rows of `runs`."""

    context: Context
    rows: Sequence[RunRow]
    """All rows of `runs`, without those of this run."""
    dates: frozenset[date]
    """Run dates whose nights may be run again."""

    @classmethod
    def of(cls, context: Context) -> Needed:
        """Return what must stay.

        Keeps the run dates within `maintenance.keep_days` of the newest; the date before the oldest of them,
        because its lists may be reused; the dates whose e-mails and feeds the oldest must not repeat; and
        every date that a run started on within `vacuum_hours`.
        """
        rows = all_rows(context)
        dated = set[date]().union(*nightly_dates(context).values())
        keep_days = context.config.maintenance.keep_days
        dates = {row.run_date for row in _lately(context, rows) if row.run_date and row.step in NIGHT}
        if dated and keep_days is not None:
            first = max(dated) - timedelta(days=keep_days - 1)
            before = max((day for day in dated if day < first), default=first)
            publish = context.config.publish
            rotated = timedelta(days=max(publish.not_again_days, publish.feed_not_again_days))
            dates |= {day for day in dated if day >= min(before, first - rotated)}
        else:
            dates |= dated
        return cls(context, rows, frozenset(dates))

    def lately(self) -> set[date]:
        """Return run dates with a recent step, which may read staged rows."""
        return {row.run_date for row in _lately(self.context, self.rows) if row.run_date}

    def bundles(self, known: Sequence[Manifest]) -> set[str]:
        """Return the ids of the bundles of `known` to keep.

        They are the newest of each purpose, the configured one, those that a night of `dates` used or would
        use, new ones, and the parents of all.
        """
        context = self.context
        by_id = {manifest.bundle_id: manifest for manifest in known}
        stay = {str(context.config.bundle.id)}
        for purpose in {manifest.purpose for manifest in known}:
            own = [one for one in known if one.purpose == purpose and one.parent_id is None]
            own.sort(key=lambda one: (one.trained_before, one.created_at), reverse=True)
            stay |= {one.bundle_id for one in own[: context.config.maintenance.keep_bundles]}
        stay |= {str(row.bundle_id) for row in self.rows if row.step in NIGHT and row.run_date in self.dates}
        for day in self.dates:
            try:
                stay.add(select_bundle(known, day).bundle_id)
            except BundleError:
                continue  # the night of that date used a configured bundle
        since = _since(context).isoformat()
        stay |= {one.bundle_id for one in known if one.created_at >= since}
        stay |= {str(by_id[one].parent_id) for one in stay if one in by_id}
        return stay & set(by_id)

    def snapshots(self, bundles: Iterable[Manifest]) -> set[str]:
        """Return the names of the snapshots of these bundles and killed trainings."""
        killed = {row.fingerprint for row in _lately(self.context, self.rows) if row.step == "train"}
        return {str(name) for name in {manifest.fingerprint for manifest in bundles} | killed}

    def versions(self, bundles: Iterable[Manifest]) -> dict[str, int]:
        """Return by input table the oldest version that must stay readable.

        Nights of `dates` read the versions that they pinned when they are run again, killed trainings too,
        and bundles for evaluation without a snapshot read the log of their training.
        """
        tables = self.context.tables
        table_ids = {name: tables.table_id(name) for name in NAMES if tables.exists(name)}
        pinned = [(row.input_versions, row.table_ids) for row in self._newest()]
        for manifest in bundles:
            uri = snapshot_uri(tables.root, manifest.fingerprint)
            if manifest.purpose == "evaluation" and not filesystem.exists(self.context.spark, uri):
                pinned.append((manifest.table_versions, manifest.table_ids or None))
        found: dict[str, int] = {}
        # The records are read again, because an erasure needs its own.
        erased = erased_versions(Night(self.context, self.context.started_at.date()).records(), table_ids)
        for versions, ids in pinned:
            # Versions of a former table at the same place cannot be kept.
            same = {name for name in table_ids if ids is None or ids.get(name) == table_ids[name]}
            for name in same & set(versions):
                version = max(versions[name], erased.get(name, 0))
                found[name] = min(version, found.get(name, version))
        return found

    def _newest(self) -> list[RunRow]:
        """Return the newest row, and the newest done row, of needed steps."""
        trainings = {
            row.run_date for row in _lately(self.context, self.rows) if row.step == "train" and row.run_date
        }
        newest: dict[tuple[object, ...], RunRow] = {}
        for row in sorted(self.rows, key=sort_key):
            if row.run_date in (trainings if row.step == "train" else self.dates) and row.step in STEPS:
                newest[row.step, row.run_date] = row
                if row.status == "done":
                    newest[row.step, row.run_date, row.status] = row
        return list(newest.values())


def nightly_dates(context: Context) -> dict[str, set[date]]:
    """Return the run dates of each nightly table."""
    names = [name for name, spec in TABLES.items() if spec.partitioned_by and context.tables.exists(name)]
    return {name: run_dates(context.tables, name) for name in names}


def at_work(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return the rows of unended steps of the last 24 hours."""
    rows = [row for row in rows if row.step in STEPS]
    ended = {(row.run_id, row.run_date, row.step) for row in rows if row.status != "started"}
    since = datetime.now(timezone.utc) - timedelta(hours=HOURS_AT_WORK)
    begun = [row for row in rows if row.started_at >= since]
    return [row for row in begun if (row.run_id, row.run_date, row.step) not in ended]


def in_words(row: RunRow) -> str:
    """Return a sentence about a step at work."""
    return (
        f"run {row.run_id} ({row.step} of {row.run_date}) began at {row.started_at:%Y-%m-%d %H:%M} UTC and "
        "has no end: it is at work or was killed"
    )


def all_rows(context: Context) -> list[RunRow]:
    """Return all rows of `runs`, without those of this run. Empty without the table."""
    if not context.tables.exists("runs"):
        return []
    rows = [as_run_row(row.asDict()) for row in context.tables.read("runs").collect()]
    return [row for row in rows if row.run_id != context.run_id]


def _lately(context: Context, rows: Iterable[RunRow]) -> list[RunRow]:
    """Return the rows of runs that began within `maintenance.vacuum_hours`."""
    since = _since(context)
    return [row for row in rows if row.started_at >= since]


def _since(context: Context) -> datetime:
    return datetime.now(timezone.utc) - timedelta(hours=context.config.maintenance.vacuum_hours)

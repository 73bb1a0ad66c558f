"""Maintenance: delete unneeded rows and files, compact small files, vacuum versions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone

from allmrec.bundle import Manifest
from allmrec.cache import training_folder
from allmrec.config import fingerprint
from allmrec.data.files.found import COPIES
from allmrec.data.snapshot import snapshot_names, snapshot_uri
from allmrec.errors import InputError
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context
from allmrec.runtime.needed import Needed, at_work, in_words, nightly_dates
from allmrec.runtime.night import Night, Step
from allmrec.spark import filesystem
from allmrec.tables import maintenance
from allmrec.tables.schemas import TABLES


@dataclass
class Removed:
    """The removed objects, or, in a dry run, the objects to remove."""

    is_dry_run: bool
    lines: list[str] = field(default_factory=list)
    """A line per object."""
    counts: dict[str, int] = field(default_factory=dict)
    """For `runs`."""

    def say(self, what: str) -> None:
        """Add a line about a removed object."""
        self.lines.append(f"{what} (dry run: it stays)" if self.is_dry_run else what)

    def count(self, name: str, number: int) -> None:
        """Add to a count."""
        self.counts[name] = self.counts.get(name, 0) + number


def run_maintain(context: Context, dry_run: bool) -> list[str]:
    """Delete old dates, bundles and snapshots, compact and vacuum; return lines.

    Objects that a night, a retry, a killed training or an evaluation may need stay
    (`allmrec.runtime.needed`). With `dry_run` only the lines are made. Raises InputError where there is no
    table; PassingError where a run writes to a date that is being deleted.
    """
    names = [name for name in TABLES if context.tables.exists(name)]
    if not names:
        raise InputError(f"maintain: no table below {context.tables.root}, expected one; set tables.root")
    removed = Removed(dry_run)
    if dry_run:
        _maintain(context, names, removed)
        return removed.lines
    mark = fingerprint(step="maintain", settings=context.config.maintenance)
    with Step(Night(context, context.started_at.date()), "maintain", mark).recorded({}, {}) as run:
        with run.part("maintain", "remove unneeded rows and files, compact small files"):
            _maintain(context, names, removed)
        run.counts = removed.counts
    return removed.lines


def _maintain(context: Context, names: Sequence[str], removed: Removed) -> None:
    needed = Needed.of(context)
    for name, dates in nightly_dates(context).items():
        _delete_dates(context, name, dates - needed.dates, removed)
    bundles, damaged = bundle_store.known_bundles(context)
    working = at_work(needed.rows)
    if working:
        removed.lines.append(f"bundles, snapshots and staged rows stay: {in_words(working[0])}")
    else:
        bundles = _delete_bundles(context, needed, bundles, removed)
        if damaged:
            names = ", ".join(sorted(damaged))
            removed.lines.append(f"snapshots stay: which one {names} needs is unknown")
        else:
            _delete_snapshots(context, needed.snapshots(bundles), removed)
        _delete_staged(context, needed.lately(), removed)
    versions = needed.versions(bundles)
    for name in names:
        _rewrite(
            context, name, versions.get(name), {row.run_date for row in working if row.run_date}, removed
        )


def _delete_dates(context: Context, name: str, expired: set[date], removed: Removed) -> None:
    """Delete the rows of expired run dates."""
    if not expired:
        return
    num_rows = maintenance.count_dates(context.tables, name, expired)
    days = f"{len(expired):,} dates ({min(expired)} to {max(expired)})"
    removed.say(f"{name}: {num_rows:,} rows of {days} deleted")
    removed.count("deleted_rows", num_rows)
    if not removed.is_dry_run:
        maintenance.delete_dates(context.tables, name, expired)


def _delete_bundles(
    context: Context, needed: Needed, known: Sequence[Manifest], removed: Removed
) -> list[Manifest]:
    """Delete unneeded bundles and their predictions; return the others."""
    stay = needed.bundles(known)
    gone = [manifest.bundle_id for manifest in known if manifest.bundle_id not in stay]
    if gone and not removed.is_dry_run and context.tables.exists("evaluation_predictions"):
        maintenance.delete_where_in(context.tables, "evaluation_predictions", "bundle_id", gone)
    for bundle_id in gone:
        num_bytes = bundle_store.bundle_bytes(context, bundle_id)
        removed.say(f"bundle {bundle_id}: {in_megabytes(num_bytes)} deleted")
        removed.count("deleted_bundles", 1)
        if not removed.is_dry_run:
            bundle_store.delete_bundle(context, bundle_id)
    return [manifest for manifest in known if manifest.bundle_id in stay]


def _delete_snapshots(context: Context, stay: set[str], removed: Removed) -> None:
    """Delete the snapshots of deleted bundles and of abandoned trainings."""
    root = context.tables.root
    for name in snapshot_names(context.spark, root):
        if name in stay:
            continue
        uri = snapshot_uri(root, name)
        num_bytes = filesystem.folder_bytes(context.spark, uri)
        removed.say(f"snapshot {name}: {in_megabytes(num_bytes)} deleted")
        removed.count("deleted_snapshots", 1)
        if not removed.is_dry_run:
            filesystem.delete(context.spark, uri)
            shutil.rmtree(training_folder(context.config.cache, root, name), ignore_errors=True)


def _delete_staged(context: Context, stay: set[date], removed: Removed) -> None:
    """Delete staged rows of inactive dates, and copies of killed imports."""
    folder = f"{context.tables.root}/_staging"
    for name in filesystem.list_folders(context.spark, folder):
        if name not in {str(day) for day in stay} and not _may_be_at_work(name):
            removed.say(f"staged rows of {name}: deleted")
            if not removed.is_dry_run:
                filesystem.delete(context.spark, f"{folder}/{name}")


def _may_be_at_work(name: str) -> bool:
    """Return whether a folder has copies of a recent import."""
    began = name.removeprefix(COPIES).partition("-")[0]
    try:
        start = datetime.strptime(began, "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return name.startswith(COPIES) and datetime.now(timezone.utc) - start < timedelta(days=1)


def _rewrite(context: Context, name: str, oldest: int | None, busy: set[date], removed: Removed) -> None:
    """Compact a table's small files, and vacuum unneeded versions."""
    tables = context.tables
    if not removed.is_dry_run:
        before, after = maintenance.compact(tables, name, busy)
        if before:
            removed.say(f"{name}: {before:,} small files became {after:,}")
            removed.count("compacted_files", before)
        # The history is read after the compaction, which may need its versions too.
        kept = None if oldest is None else maintenance.age(tables, name, oldest)
        maintenance.keep_history(tables, name, context.config.maintenance.vacuum_hours, kept)
    num_files, num_bytes = maintenance.vacuum(tables, name, removed.is_dry_run)
    if num_files:
        removed.say(f"{name}: {num_files:,} files of old versions, {in_megabytes(num_bytes)}, deleted")
        removed.count("vacuumed_files", num_files)
        removed.count("vacuumed_bytes", num_bytes)


def in_megabytes(num_bytes: int) -> str:
    """Return a number of bytes in words."""
    return f"{num_bytes / 1e6:,.1f} MB"

"""The erasure of a user from tables, snapshots and caches, for good."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

from pyspark.sql import functions as F

from allmrec.cache import cache_folder
from allmrec.config import fingerprint
from allmrec.data.rejection import hashes_of_user
from allmrec.data.snapshot import count_user, snapshot_names, snapshot_uri, write_without_user
from allmrec.errors import InputError, PassingError
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs, sources_of
from allmrec.runtime.needed import STEPS, Needed, all_rows, at_work, in_words
from allmrec.runtime.night import Night, Step, StepRun
from allmrec.runtime.runs import RunRow, sort_key
from allmrec.spark import filesystem
from allmrec.tables import maintenance
from allmrec.tables.delta import Written
from allmrec.tables.schemas import TABLES
from allmrec.tables.sources import Source

LOG_DAYS = 30
"""Days for which Delta's log may contain a user's id, as smallest or largest value of a deleted file."""


def run_forget(context: Context, user: str) -> list[str]:
    """Erase a user. Return lines about removed and remaining rows.

    The lists of all others are unchanged, and the next night may keep them. Raises, before it writes,
    InputError where the user is not found, and PassingError where a step is at work, which would write the
    user again.
    """
    names = [name for name in TABLES if context.tables.exists(name)]
    rows = all_rows(context)
    for row in at_work(rows):
        raise PassingError(f"forget: {in_words(row)}; wait for it, or run it again, then forget")
    found = {name: count for name in names if (count := _count(context, name, user))}
    theirs = _in_place(context, user)
    snapshots = snapshot_names(context.spark, context.tables.root)
    snapshots = [name for name in snapshots if _is_in(context, name, user)]
    if not found and not snapshots and not any(theirs.values()):
        raise InputError(
            f"forget: user {user!r} is in no column user_id of the tables below {context.tables.root}, "
            "expected the id of a user; check it"
        )
    lines = []
    step = Step(Night(context, context.started_at.date()), "forget", fingerprint(step="forget"))
    with step.recorded({}, {}) as run:
        for name in (name for name in found if TABLES[name].owned):
            _erase(context, rows, name, user)
            lines.append(f"{name}: {found[name]:,} rows deleted")
        anew = [row.columns() for row in rows if row.run_id == context.run_id]
        if anew:
            context.tables.append("runs", *anew)
        for name in snapshots:
            write_without_user(context.spark, snapshot_uri(context.tables.root, name), user)
            lines.append(f"snapshot {name}: written again without the user")
        lines += _erase_copies(context)
        lines += _erase_from_inputs(context, run, names, found, user)
        for source, count in theirs.items():
            lines += _of_owner(run, source, count)
        run.counts = {f"deleted_{name}": count for name, count in found.items()}
        run.counts["rewritten_snapshots"] = len(snapshots)
    _vacuum(context, names)
    _require_that_nothing_ran(context)
    return [*lines, *_remains(context)]


def _count(context: Context, name: str, user: str) -> int:
    """Return how many rows of a table are the user's."""
    rows = context.tables.read_as_it_is(name)
    if name == "rejected_rows":
        return len(hashes_of_user(rows, user))
    return rows.where(F.col("user_id") == user).count() if "user_id" in rows.columns else 0


def _is_in(context: Context, snapshot: str, user: str) -> bool:
    return count_user(context.spark, snapshot_uri(context.tables.root, snapshot), user) > 0


def _in_place(context: Context, user: str) -> dict[Source, int]:
    """Return the number of the user's rows by table in place."""
    sources = [source for source in sources_of(context) if not source.is_own and source.name != "items"]
    if not sources:
        return {}
    inputs = Inputs.newest(context)
    frames = {"interactions": inputs.interactions(), "users": inputs.users()}
    own = {source: frames[source.name] for source in sources}
    is_theirs = F.col("user_id") == user
    return {source: rows.where(is_theirs).count() for source, rows in own.items() if rows is not None}


def _erase(context: Context, rows: list[RunRow], name: str, user: str) -> None:
    """Delete the user's rows of an owned table. Renew its records in `rows`."""
    tables = context.tables
    if name == "rejected_rows":
        hashes = hashes_of_user(tables.read(name), user)
        maintenance.delete_where_in(tables, name, "row_hash", hashes)
        return
    before = tables.written_dates(name) if TABLES[name].partitioned_by else {}
    maintenance.delete_where_in(tables, name, "user_id", [user])
    if before:
        _record_anew(context, rows, name, before, tables.written_dates(name))


def _erase_from_inputs(
    context: Context, run: StepRun, names: list[str], found: Mapping[str, int], user: str
) -> list[str]:
    """Delete the user's rows of our input tables and record their versions. Return lines.

    They come last, so that an erasure that is killed earlier finds the user again.
    """
    lines = []
    for name in (name for name in names if not TABLES[name].owned):
        if name in found:
            maintenance.delete_where_in(context.tables, name, "user_id", [user])
            lines.append(f"{name}: {found[name]:,} rows deleted")
        if name != "items":
            run.outputs[name] = Written(context.tables.version(name), 0, "")
            run.table_ids[name] = context.tables.table_id(name)
    return lines


def _record_anew(
    context: Context,
    rows: list[RunRow],
    name: str,
    before: Mapping[date, Written],
    after: Mapping[date, Written],
) -> None:
    """Record the rows that are left in a table's dates.

    Its steps are then skipped, as before. The new record has this run's id. Records that did not match their
    rows before are not renewed.
    """
    newest = {
        (row.step, row.run_date): row
        for row in sorted(rows, key=sort_key)
        if row.status == "done" and name in row.outputs
    }
    for (step, day), row in newest.items():
        if day is None or day not in before or before[day][1:] != row.outputs[name][1:]:
            continue
        left = after.get(day, Written(context.tables.version(name), 0, "0"))
        if left[1:] == before[day][1:]:
            continue
        # A step with two tables has one record. `rows` contains the first table's change when the second
        # comes.
        anew = replace(row, run_id=context.run_id, outputs={**row.outputs, name: left})
        rows[:] = [one for one in rows if (one.run_id, one.step, one.run_date) != (context.run_id, step, day)]
        rows.append(anew)


def _erase_copies(context: Context) -> list[str]:
    """Delete staged rows and this machine's copies of snapshots."""
    filesystem.delete(context.spark, f"{context.tables.root}/_staging")
    copies = list((cache_folder(context.config.cache) / "training").glob("*/snapshot"))
    for folder in copies:
        shutil.rmtree(folder, ignore_errors=True)
    return [f"cache: {len(copies):,} copies of snapshots deleted"] if copies else []


def _of_owner(run: StepRun, source: Source, count: int) -> list[str]:
    """Return what the owner of a table in place must do. Record its version when done."""
    if count:
        return [
            f"{source.name}: {count:,} rows of the user are in {source.place}, which is never written here: "
            "delete them there, then forget again; until then the next night reads them"
        ]
    version = source.version()
    table_id = source.table_id()
    if version is not None and table_id is not None:
        run.outputs[source.key] = Written(version, 0, "")
        run.table_ids[source.key] = table_id
    return []


def _require_that_nothing_ran(context: Context) -> None:
    """Raise PassingError where a step began during the erasure."""
    for row in all_rows(context):
        if row.step in STEPS and row.started_at >= context.started_at:
            raise PassingError(
                f"forget: run {row.run_id} ({row.step} of {row.run_date}) began meanwhile and may have read "
                "the user; when it is done, forget again"
            )


def _vacuum(context: Context, names: list[str]) -> None:
    """Vacuum every table as maintenance does, older versions than the erasure included."""
    versions = Needed.of(context).versions(bundle_store.manifests(context))
    for name in names:
        oldest = maintenance.age(context.tables, name, versions[name]) if name in versions else None
        maintenance.keep_history(context.tables, name, context.config.maintenance.vacuum_hours, oldest)
        maintenance.vacuum(context.tables, name, dry_run=False)


def _remains(context: Context) -> list[str]:
    """Return a line on how long deleted rows remain on disk."""
    now = datetime.now(timezone.utc)
    files = now + timedelta(hours=context.config.maintenance.vacuum_hours)
    log = now + timedelta(days=LOG_DAYS)
    return [
        f"old versions of these tables contain the rows until {files:%Y-%m-%d %H:%M} UTC: "
        f"run `allmrec maintain` then; their logs may contain the id until {log:%Y-%m-%d}"
    ]

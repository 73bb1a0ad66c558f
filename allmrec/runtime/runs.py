"""The table `runs`: what ran, on what, with what outcome; and whether a step's rows are there.

A step adds a row when it begins and one when it ends. Rows are only ever added, so that runs at work at the
same time never meet there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from types import MappingProxyType
from typing import Any, NamedTuple

from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.config import fingerprint
from allmrec.errors import InputError, UserError
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.tables.cached_frames import CachedFrames
from allmrec.tables.delta import Written
from allmrec.tables.secret_settings import without_secrets
from allmrec.tables.troubles import as_user_error

MAX_MESSAGE = 2000
"""Characters of an error that `runs.message` holds at most."""
NIGHT = ("sequences", "candidates", "score", "publish")
"""The steps of a night, in order."""
MAPS = ("input_versions", "counts", "timings", "figures", "outputs", "gates")
"""The maps of `RunRow` that a row of `runs` may have as null."""
NULL: Mapping[str, Any] = MappingProxyType({})
"""The null of a map in `runs`: readers find it empty, and it is stored as null again."""


def _null() -> Mapping[str, Any]:
    return NULL


@dataclass(frozen=True)
class RunRow:
    """A row of `runs`; the attributes are its columns."""

    run_id: str
    step: str
    status: str
    """started, done or failed."""
    started_at: datetime
    run_date: date | None = None
    finished_at: datetime | None = None
    fingerprint: str | None = None
    input_versions: Mapping[str, int] = field(default_factory=_null)
    """Version of every input table."""
    bundle_id: str | None = None
    config_hash: str | None = None
    counts: Mapping[str, int] = field(default_factory=_null)
    timings: Mapping[str, float] = field(default_factory=_null)
    """Seconds by part of the step; `all` is the whole step."""
    figures: Mapping[str, float] = field(default_factory=_null)
    message: str | None = None
    """What went wrong, where the status is failed."""
    run_order: int | None = None
    outputs: Mapping[str, Written] = field(default_factory=_null)
    """What the step left in each table."""
    gates: Mapping[str, float] = field(default_factory=_null)
    overridden: list[str] | None = None
    llm_dtype: str | None = None
    table_ids: Mapping[str, str] | None = None
    """Delta's id of every table that was read or written; None from an older version."""
    broken: list[str] | None = None
    """The rules by which the step failed; None in rows of older versions, whose `message` names them."""

    def columns(self) -> dict[str, Any]:
        """Return the values as they are stored, by column."""
        return {name: None if value is NULL else value for name, value in vars(self).items()}


class Finished(NamedTuple):
    """A step that is done, and where its rows are."""

    row: RunRow
    versions: Mapping[str, int]
    """By table: a version that holds the rows which the record names."""


@dataclass
class StepRun:
    """A step at work: how it reports and caches, and what it leaves in its row of `runs`."""

    report: Report
    frames: CachedFrames
    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    bundle_id: str | None = None
    outputs: dict[str, Written] = field(default_factory=dict)
    gates: dict[str, float] = field(default_factory=dict)
    overridden: list[str] = field(default_factory=list)
    table_ids: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def part(self, name: str, purpose: str) -> AbstractContextManager[None]:
        """Return the context manager of a part of the step: it says what the part is for and times it."""
        return self.report.part(name, purpose)

    def keep(self, frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK_DESER) -> DataFrame:
        """Return `frame`, which Spark keeps until the step ends."""
        return self.frames.keep(frame, level)


def of_date(context: Context, run_date: date) -> list[RunRow]:
    """Return the rows of a run date, and those of all erasures, as they stand now.

    They are read again only where the table has changed.
    """
    version = context.tables.newest("runs")
    if version is None:
        return []
    known = context.records.get(run_date)
    if known is None or known[0] != version:
        rows = context.tables.read("runs", version).where(
            (F.col("run_date") == F.lit(run_date)) | (F.col("step") == "forget")
        )
        known = version, [as_run_row(row.asDict()) for row in rows.collect()]
        context.records[run_date] = known
    return known[1]


def place(row: RunRow) -> tuple[Any, ...]:
    """Return the place of a row among those of its date: newest run last, a step's end after its start."""
    return (row.run_order or 0, row.started_at, row.run_id, row.status != "started")


def latest(context: Context, step: str, run_date: date, status: str | None = None) -> RunRow | None:
    """Return the newest row of this step, run_date and status (by default any); None where there is none."""
    rows = (row for row in of_date(context, run_date) if row.step == step and status in (None, row.status))
    return max(rows, key=place, default=None)


def last_done(context: Context, step: str, before: date) -> date | None:
    """Return the newest run date before `before` on which a step was done; None where there is none."""
    rows = context.tables.read("runs").where((F.col("step") == step) & (F.col("status") == "done"))
    newest = rows.where(F.col("run_date") < F.lit(before)).agg(F.max("run_date")).first()
    return None if newest is None else newest[0]


def erased_versions(rows: Iterable[RunRow], table_ids: Mapping[str, str]) -> dict[str, int]:
    """Return, by `Source.key`, the version of each table before which it holds rows of an erased user.

    `table_ids` are those of the tables as they are now. Erasures from a table that was at the same place
    before are left out.
    """
    found: dict[str, int] = {}
    for row in rows:
        if row.step == "forget" and row.status == "done":
            for key, written in row.outputs.items():
                if is_same_table(row, key, table_ids):
                    found[key] = max(written.version, found.get(key, 0))
    return found


def is_same_table(row: RunRow, key: str, table_ids: Mapping[str, str]) -> bool:
    """Return whether a record is about the table that `table_ids` has under a key.

    A record of an older version, without ids, is believed.
    """
    return row.table_ids is None or row.table_ids.get(key) == table_ids.get(key)


def as_run_row(values: Mapping[str, object]) -> RunRow:
    """Return a row of the table as a `RunRow`; its times are UTC, where Spark's are without a zone."""
    nulls = {name: NULL for name in MAPS if values.get(name) is None}
    row = RunRow(**{**values, **nulls})  # type: ignore[arg-type]
    outputs = row.outputs and {table: Written(*written) for table, written in row.outputs.items()}
    finished_at = row.finished_at and row.finished_at.astimezone(timezone.utc)
    started_at = row.started_at.astimezone(timezone.utc)
    return replace(row, started_at=started_at, finished_at=finished_at, outputs=outputs)


def finished(context: Context, step: str, run_date: date) -> Finished:
    """Return the newest record of a step that is done, and where its rows are.

    Raises InputError, naming its command, where there is none, or where its rows are no longer there.
    """
    row = latest(context, step, run_date, "done")
    command = f"run `allmrec {step} --run-date {run_date}`"
    if row is None:
        other = latest(context, step, run_date)
        raise InputError(
            f"{step} of {run_date}: {other.status if other else 'not run'}, expected done; {command}"
        )
    versions = _where_rows_are(context, row)
    if versions is None:
        tables = ", ".join(row.outputs) or "its tables"
        raise InputError(
            f"{step} of {run_date}: {tables} hold other rows than run {row.run_id} left there; {command}"
        )
    return Finished(row, versions)


def already_there(context: Context, step: str, run_date: date, fingerprint: str) -> bool:
    """Return whether the step's rows for this fingerprint are in their tables, and say so where they are.

    What counts are the rows: a later run that failed before it wrote undoes nothing, and one that was killed
    after it wrote left other rows.
    """
    row = None if context.options.force else latest(context, step, run_date, "done")
    if row is None or row.fingerprint != fingerprint:
        return False
    if context.options.full and row.counts.get("carried"):
        return False
    if _where_rows_are(context, row) is None:
        found = f"other rows than those of run {row.run_id} are there"
        context.report(f"{step} {run_date}: {found}, so it is repeated")
        return False
    context.report(f"{step} {run_date}: already there ({row.run_id}), skipped")
    return True


@contextmanager
def recorded(
    context: Context,
    step: str,
    run_date: date,
    step_fingerprint: str,
    versions: Mapping[str, int],
    table_ids: Mapping[str, str],
) -> Iterator[StepRun]:
    """Record the block as a run of the step: started, and then done with what the block set, or failed.

    `versions` and `table_ids` are those of the input tables, by `Source.key`.

    Every commit inside the block names run, step, fingerprint and input versions in its `userMetadata`.
    Raises what the block raises; what Delta, Spark or the disk raised there as UserError.
    """
    row = RunRow(
        run_id=context.run_id,
        step=step,
        run_date=run_date,
        status="started",
        started_at=_now(),
        fingerprint=step_fingerprint,
        input_versions=dict(versions),
        config_hash=fingerprint(config=context.config.without_secrets()),
        run_order=context.order,
        llm_dtype=context.config.llm.dtype,
        table_ids=dict(table_ids),
    )
    report = context.report.under(f"{step} {run_date}: ", step=step, run_date=str(run_date))
    run = StepRun(report, CachedFrames(), table_ids=dict(table_ids))
    with context.tables.marked_commits(_mark_of(row)):
        _put(context, row)
        try:
            with run.frames, report.whole():
                yield run
        except BaseException as error:
            known = as_user_error(error)
            report(f"failed ({type(known or error).__name__})")
            failed = replace(
                row, timings=report.seconds, counts=run.counts or NULL, figures=run.figures or NULL
            )
            failed = replace(
                failed, gates=run.gates or NULL, overridden=run.overridden or None, broken=run.broken
            )
            _put_failed(context, failed, known or error)
            if known is not None and known is not error:
                raise known from error
            raise
        done = replace(row, status="done", finished_at=_now(), timings=report.seconds, outputs=run.outputs)
        done = replace(done, counts=run.counts, figures=run.figures, bundle_id=run.bundle_id)
        done = replace(done, gates=run.gates, overridden=run.overridden, table_ids=run.table_ids)
        _put(context, done)


def _mark_of(row: RunRow) -> dict[str, object]:
    """Return what every commit of a step says of its origin."""
    return {
        "run_id": row.run_id,
        "step": row.step,
        "run_date": str(row.run_date),
        "fingerprint": row.fingerprint,
        "input_versions": row.input_versions,
    }


def _where_rows_are(context: Context, row: RunRow) -> Mapping[str, int] | None:
    """Return a version of each of the step's tables that holds the record's rows; None where one has others.

    A record without outputs, as version 0.1.0 left it, cannot be believed.
    """
    versions = {}
    for table, written in row.outputs.items():
        newest = context.tables.newest(table)
        if newest is None:
            return None
        # A version that is still the newest holds what was just written, if it is the same table's. Later
        # ones are looked into.
        is_same = (row.table_ids or {}).get(table) == context.tables.table_id(table)
        if newest != written.version or not is_same:
            assert row.run_date is not None
            now = context.tables.written(table, row.run_date, newest)
            if now[1:] != written[1:]:
                return None
        versions[table] = newest
    return versions or None


def _put_failed(context: Context, row: RunRow, error: BaseException) -> None:
    """Record a failure; where even that fails, say so, so that the first error is the one that is seen."""
    message = without_secrets(f"{type(error).__name__}: {error}")[:MAX_MESSAGE]
    try:
        _put(context, replace(row, status="failed", finished_at=_now(), message=message))
    except (UserError, PySparkException, Py4JError, OSError) as second:
        context.report(f"{row.step} {row.run_date}: failed, and runs cannot be written: {str(second)[:200]}")


def _put(context: Context, row: RunRow) -> None:
    """Add a row; where nobody else added one since the date's were read, they need not be read again."""
    known = context.records.get(row.run_date) if row.run_date else None
    context.tables.append("runs", row.columns())
    if row.run_date and known and context.tables.newest("runs") == known[0] + 1:
        context.records[row.run_date] = known[0] + 1, [*known[1], row]


def _now() -> datetime:
    return datetime.now(timezone.utc)

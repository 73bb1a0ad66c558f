"""The table `runs`: what ran, on what, with what outcome; and whether a step's output is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone

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

MAX_MESSAGE = 2000
"""Characters of an error that `runs.message` holds at most."""


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
    input_versions: Mapping[str, int] | None = None
    """Version of every input table."""
    bundle_id: str | None = None
    config_hash: str | None = None
    counts: Mapping[str, int] | None = None
    timings: Mapping[str, float] | None = None
    """Seconds by part of the step; `all` is the whole step."""
    figures: Mapping[str, float] | None = None
    message: str | None = None
    """What went wrong, where the status is failed."""


@dataclass
class StepRun:
    """A step at work: how it reports and caches, and what it leaves in its row of `runs`."""

    report: Report
    frames: CachedFrames
    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    bundle_id: str | None = None

    def part(self, name: str, purpose: str) -> AbstractContextManager[None]:
        """Return the context manager of a part of the step: it says what the part is for and times it."""
        return self.report.part(name, purpose)

    def keep(self, frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK_DESER) -> DataFrame:
        """Return `frame`, which Spark keeps until the step ends."""
        return self.frames.keep(frame, level)


def latest(context: Context, step: str, run_date: date) -> RunRow | None:
    """Return the newest row of this step and run_date, whatever its status; None where there is none."""
    if not context.tables.exists("runs"):
        return None
    rows = context.tables.read("runs").where((F.col("step") == step) & (F.col("run_date") == F.lit(run_date)))
    row = rows.orderBy(F.col("started_at").desc(), F.col("run_id").desc()).first()
    return None if row is None else RunRow(**row.asDict(recursive=True))


def finished(context: Context, step: str, run_date: date) -> RunRow:
    """Return the newest row of a step that is done; raises InputError, naming its command, for any other."""
    row = latest(context, step, run_date)
    if row is None or row.status != "done":
        raise InputError(
            f"{step} of {run_date}: {row.status if row else 'not run'}, expected done; "
            f"run `allmrec {step} --run-date {run_date}`"
        )
    return row


def already_there(context: Context, step: str, run_date: date, step_fingerprint: str, table: str) -> bool:
    """Return whether `table` holds the step's output for this fingerprint, and say so where it does.

    A step counts as done only if its newest row for the run_date says so: one that failed later is repeated.
    """
    row = latest(context, step, run_date)
    same = row is not None and row.status == "done" and row.fingerprint == step_fingerprint
    if row is None or not same or not context.tables.exists(table):
        return False
    context.report(f"{step} {run_date}: already there ({row.run_id}), skipped")
    return True


@contextmanager
def recorded(
    context: Context, step: str, run_date: date, step_fingerprint: str, versions: Mapping[str, int]
) -> Iterator[StepRun]:
    """Record the block as a run of the step: started, and then done with what the block set, or failed."""
    row = RunRow(
        run_id=context.run_id,
        step=step,
        run_date=run_date,
        status="started",
        started_at=_now(),
        fingerprint=step_fingerprint,
        input_versions=dict(versions),
        config_hash=fingerprint(config=context.config),
    )
    _put(context, row)
    report = context.report.under(f"{step} {run_date}: ")
    try:
        with CachedFrames() as frames, report.whole():
            run = StepRun(report, frames)
            yield run
    except BaseException as error:
        _put_failed(context, replace(row, timings=report.seconds), error)
        raise
    done = replace(row, status="done", finished_at=_now(), timings=report.seconds)
    _put(context, replace(done, counts=run.counts, figures=run.figures, bundle_id=run.bundle_id))


def _put_failed(context: Context, row: RunRow, error: BaseException) -> None:
    """Record a failure; where even that fails, say so, so that the first error is the one that is seen."""
    message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE]
    try:
        _put(context, replace(row, status="failed", finished_at=_now(), message=message))
    except (UserError, PySparkException, Py4JError, OSError) as second:
        context.report(f"{row.step} {row.run_date}: failed, and runs cannot be written: {str(second)[:200]}")


def _put(context: Context, row: RunRow) -> None:
    context.tables.put("runs", vars(row))


def _now() -> datetime:
    return datetime.now(timezone.utc)

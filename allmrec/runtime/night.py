"""A run date with the run at work on it, its steps, and their records in `runs`.

Fencing: if two runs work on one date, only the newer one may write. The newer one is a retry; the scheduler
gave up the driver of the older one. The rows of `runs` contain the order of a date's runs (`Context.order`),
and so does every commit of a nightly table (`Tables.replace_date`). The table itself refuses an older run's
commit after a newer one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from typing import Any

from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.config import fingerprint
from allmrec.errors import InputError, SupersededError, UserError
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.runtime.decides import step_fingerprint
from allmrec.runtime.listeners import Listeners
from allmrec.runtime.runs import MAX_MESSAGE, NIGHT, NULL, RunRow, as_run_row, sort_key, versions_with_rows
from allmrec.spark.cached_frames import CachedFrames
from allmrec.spark.secret_settings import without_secrets
from allmrec.spark.troubles import as_user_error
from allmrec.tables.delta import Written


@dataclass(frozen=True)
class Night:
    """A run date, and the run that works on it."""

    context: Context
    run_date: date

    def with_new_run(self) -> Night:
        """Return the date under a new run, which supersedes its other runs.

        The new run comes after them in order, also if this machine's clock is behind.
        """
        after = max((row.run_order or 0 for row in self.records()), default=0)
        return replace(self, context=self.context.with_new_run(after))

    def with_resolved_dtype(self) -> Night:
        """Return the date with the context of `Context.with_resolved_dtype`."""
        return replace(self, context=self.context.with_resolved_dtype())

    def records(self) -> list[RunRow]:
        """Return the rows of `runs` for the date, and those of all erasures.

        They are read again only if the table has changed.
        """
        context = self.context
        version = context.tables.newest("runs")
        if version is None:
            return []
        known = context.records.get(self.run_date)
        if known is None or known[0] != version:
            rows = context.tables.read("runs", version).where(
                (F.col("run_date") == F.lit(self.run_date)) | (F.col("step") == "forget")
            )
            known = version, [as_run_row(row.asDict()) for row in rows.collect()]
            context.records[self.run_date] = known
        return known[1]

    def latest(self, step: str, status: str | None = None) -> RunRow | None:
        """Return a step's newest row of this status (by default any); None where there is none."""
        rows = (row for row in self.records() if row.step == step and status in (None, row.status))
        return max(rows, key=sort_key, default=None)

    def before(self, step: str) -> Night | None:
        """Return the newest earlier date on which a step was done; None where there is none."""
        rows = self.context.tables.read("runs").where((F.col("step") == step) & (F.col("status") == "done"))
        newest = rows.where(F.col("run_date") < F.lit(self.run_date)).agg(F.max("run_date")).first()
        return None if newest is None or newest[0] is None else replace(self, run_date=newest[0])

    def done(self, step: str) -> Finished:
        """Return a step that is done: its newest record, and where its rows are.

        Raises InputError, naming the step's command, where there is no record, or where the tables hold other
        rows than the record names.
        """
        row = self.latest(step, "done")
        command = f"run `allmrec {step} --run-date {self.run_date}`"
        if row is None:
            other = self.latest(step)
            raise InputError(
                f"{step} of {self.run_date}: {other.status if other else 'not run'}, expected done; {command}"
            )
        versions = versions_with_rows(self.context.tables, row)
        if versions is None:
            tables = ", ".join(row.outputs) or "its tables"
            raise InputError(
                f"{step} of {self.run_date}: {tables} hold other rows than run {row.run_id} left there; "
                f"{command}"
            )
        return Finished(self, row, versions)

    def step(self, name: str, after: Finished | None = None, **inputs: Any) -> Step:
        """Return a step of the date, which reads the rows of the step `after`.

        `inputs` are what else decides its rows (`allmrec.runtime.decides.step_fingerprint`).
        """
        if after is not None:
            inputs["previous"] = after.row.fingerprint
        return Step(self, name, step_fingerprint(name, self.context.config, self.run_date, **inputs))

    def newer_run(self) -> RunRow | None:
        """Return a row of the newest run of a night, None where it is this run."""
        context = self.context
        others = [row for row in self.records() if row.step in NIGHT and row.run_id != context.run_id]
        newest = max(others, key=sort_key, default=None)
        return newest if newest is not None and (newest.run_order or 0) > context.order else None

    def require_newest(self) -> None:
        """Raise SupersededError, naming the winner, where a newer run works on the date."""
        newer = self.newer_run()
        if newer is not None:
            raise SupersededError(
                f"run {self.context.run_id} of {self.run_date}: run {newer.run_id} ({newer.step}, "
                f"{newer.started_at:%Y-%m-%d %H:%M:%S} UTC) is newer and works on the same date; "
                "this one stops and writes nothing more"
            )


@dataclass(frozen=True)
class Finished:
    """A step of a date that is done, and where its rows are."""

    night: Night
    row: RunRow
    versions: Mapping[str, int]
    """By table: a version that holds the rows which the record names."""

    def read(self, table: str) -> DataFrame:
        """Return the date's rows of a table that the step has written."""
        return self.night.context.tables.read_date(table, self.night.run_date, self.versions[table])


@dataclass(frozen=True)
class Step:
    """A step of a date, and the fingerprint of all that decides its rows."""

    night: Night
    name: str
    fingerprint: str

    def is_there(self) -> bool:
        """Return whether the step's rows are in their tables, and report it.

        The rows in the tables decide, not the last status. A later run that failed before writing changes
        nothing. A run that was killed after writing makes the step run again.
        """
        context = self.night.context
        row = None if context.options.force else self.night.latest(self.name, "done")
        if row is None or row.fingerprint != self.fingerprint:
            return False
        if context.options.full and row.counts.get("carried"):
            return False
        label = f"{self.name} {self.night.run_date}"
        if versions_with_rows(context.tables, row) is None:
            found = f"other rows than those of run {row.run_id} are there"
            context.report(f"{label}: {found}, so it is repeated")
            return False
        context.report(f"{label}: already there ({row.run_id}), skipped")
        return True

    @contextmanager
    def recorded(self, versions: Mapping[str, int], table_ids: Mapping[str, str]) -> Iterator[StepRun]:
        """Record the block as a run of the step.

        The record is `started` before the block and `done` or `failed` after it, with what the block set.
        `versions` and `table_ids` are those of the input tables, by `Source.key`. Every commit inside the
        block names run, step, fingerprint and input versions in its `userMetadata`. The listeners of
        `reporting.listeners` hear both rows. Raises what the block raises; what Delta, Spark or the disk
        raised there as UserError.
        """
        context = self.night.context
        day = self.night.run_date
        row = RunRow(
            run_id=context.run_id,
            step=self.name,
            run_date=day,
            status="started",
            started_at=_now(),
            fingerprint=self.fingerprint,
            input_versions=dict(versions),
            config_hash=fingerprint(config=context.config.without_secrets()),
            run_order=context.order,
            llm_dtype=context.config.llm.dtype,
            table_ids=dict(table_ids),
        )
        report = context.report.under(f"{self.name} {day}: ", step=self.name, run_date=str(day))
        run = StepRun(self.night, report, CachedFrames(), table_ids=dict(table_ids))
        listeners = Listeners(context.config.reporting.listeners, report)
        with context.tables.marked_commits(_mark_of(row)):
            self._put(row)
            listeners.started(row)
            try:
                with run.frames, report.whole():
                    yield run
            except BaseException as error:
                known = as_user_error(error)
                report(f"failed ({type(known or error).__name__})")
                failed = _row_of_failure(row, run, known or error)
                self._put_failure(failed)
                listeners.ended(failed)
                if known is not None and known is not error:
                    raise known from error
                raise
            done = _row_of_success(row, run)
            self._put(done)
            listeners.ended(done)

    def _put_failure(self, row: RunRow) -> None:
        """Record a failure; if that fails too, report it, so that the first error is raised."""
        try:
            self._put(row)
        except (UserError, PySparkException, Py4JError, OSError) as second:
            self.night.context.report(
                f"{row.step} {row.run_date}: failed, and runs cannot be written: {str(second)[:200]}"
            )

    def _put(self, row: RunRow) -> None:
        """Add a row to `runs`, and to the known rows unless another run has added one."""
        context = self.night.context
        day = self.night.run_date
        known = context.records.get(day)
        context.tables.append("runs", row.columns())
        if known and context.tables.newest("runs") == known[0] + 1:
            context.records[day] = known[0] + 1, [*known[1], row]


@dataclass
class StepRun:
    """A step at work: reports, caches, writes, and collects its row of `runs`."""

    night: Night
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
        """Return the context manager of a part of the step, which reports and times it."""
        return self.report.part(name, purpose)

    def keep(self, frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK_DESER) -> DataFrame:
        """Return `frame`, which Spark keeps until the step ends."""
        return self.frames.keep(frame, level)

    def replace(self, table: str, rows: DataFrame) -> None:
        """Replace the date's rows of a table in one commit, as the step's output.

        Raises SupersededError where a newer run works on the date, and what `Tables.replace_date` raises.
        """
        context = self.night.context
        self.night.require_newest()
        try:
            written = context.tables.replace_date(table, rows, self.night.run_date, next(context.commits))
            self.outputs[table] = written
            self.table_ids[table] = context.tables.table_id(table)
        except SupersededError:
            self.night.require_newest()
            raise

    def written(self, table: str) -> DataFrame:
        """Return the date's rows of a table as `replace` has written them."""
        return self.night.context.tables.read_date(table, self.night.run_date, self.outputs[table].version)


def _mark_of(row: RunRow) -> dict[str, object]:
    """Return what every commit of a step says of its origin."""
    return {
        "run_id": row.run_id,
        "step": row.step,
        "run_date": str(row.run_date),
        "fingerprint": row.fingerprint,
        "input_versions": row.input_versions,
    }


def _row_of_success(row: RunRow, run: StepRun) -> RunRow:
    """Return the last row of a step that is done."""
    return replace(
        row,
        status="done",
        finished_at=_now(),
        timings=run.report.seconds,
        counts=run.counts,
        figures=run.figures,
        bundle_id=run.bundle_id,
        outputs=run.outputs,
        gates=run.gates,
        overridden=run.overridden,
        table_ids=run.table_ids,
    )


def _row_of_failure(row: RunRow, run: StepRun, error: BaseException) -> RunRow:
    """Return the last row of a step that failed."""
    return replace(
        row,
        status="failed",
        finished_at=_now(),
        message=without_secrets(f"{type(error).__name__}: {error}")[:MAX_MESSAGE],
        timings=run.report.seconds,
        counts=run.counts or NULL,
        figures=run.figures or NULL,
        gates=run.gates or NULL,
        overridden=run.overridden or None,
        broken=run.broken,
    )


def _now() -> datetime:
    return datetime.now(timezone.utc)

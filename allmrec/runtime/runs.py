"""The `runs` table: what ran, on what, with what outcome; and whether a step's output for the same inputs is already there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any

from pyspark.sql import functions as F

from allmrec.config import fingerprint
from allmrec.errors import InputError
from allmrec.runtime.context import Context, Stopwatch


@dataclass
class Outcome:
    """What a step leaves in `runs`, beside its table."""

    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    bundle_id: str | None = None
    message: str | None = None


def latest(context: Context, step: str, run_date: date) -> dict[str, Any] | None:
    """Return the newest row of `runs` for this step and run_date, whatever its status; None where there is none."""
    if not context.tables.exists("runs"):
        return None
    rows = context.tables.read("runs").where((F.col("step") == step) & (F.col("run_date") == F.lit(run_date)))
    row = rows.orderBy(F.col("started_at").desc(), F.col("run_id").desc()).first()
    return None if row is None else row.asDict(recursive=True)


def done(context: Context, step: str, run_date: date) -> dict[str, Any]:
    """Return the row of a finished step; raises InputError, naming the command to run first, where it is not done."""
    row = latest(context, step, run_date)
    if row is None or row["status"] != "done":
        raise InputError(
            f"{step} of {run_date}: {row['status'] if row else 'not run'}, expected done; run `allmrec {step} --run-date {run_date}`"
        )
    return row


def record(
    context: Context,
    step: str,
    run_date: date,
    table: str | None,
    work: Callable[[Stopwatch], Outcome],
    **inputs: Any,
) -> tuple[Outcome | None, str]:
    """Run `work` unless its output for the same `inputs` is there; return (its outcome or None where skipped, the fingerprint).

    The fingerprint covers step, run_date and `inputs` (settings that change rows, bundle, versions of tables we do not own, the previous
    step's fingerprint). A step counts as done only if the newest row for this run_date says so: a run that failed later is repeated.
    Where `table` is None the work is never skipped.
    """
    mark = fingerprint(step=step, run_date=str(run_date), **inputs)
    before = latest(context, step, run_date)
    there = table is not None and context.tables.exists(table)
    if before is not None and before["status"] == "done" and before["fingerprint"] == mark and there:
        context.report(f"{step} {run_date}: already there ({before['run_id']}), skipped")
        return None, mark
    row = {
        "run_id": context.run_id, "step": step, "run_date": run_date, "status": "started", "started_at": datetime.now(timezone.utc),
        "fingerprint": mark, "input_versions": context.versions, "config_hash": fingerprint(config=context.config),
    }  # fmt: skip
    _write(context, row)
    watch = Stopwatch(lambda line: context.report(f"{step} {run_date}: {line}"))
    try:
        with watch("all", "started"):
            outcome = work(watch)
    except BaseException as error:
        _write(
            context,
            row
            | {
                "status": "failed",
                "message": f"{type(error).__name__}: {error}"[:2000],
                "timings": watch.seconds,
            },
        )
        raise
    finally:
        context.release()
    done_row = {
        "status": "done",
        "counts": outcome.counts,
        "figures": outcome.figures,
        "bundle_id": outcome.bundle_id,
        "message": outcome.message,
    }
    _write(context, row | done_row | {"timings": watch.seconds})
    return outcome, mark


def _write(context: Context, row: dict[str, Any]) -> None:
    context.tables.put(
        "runs", row if row["status"] == "started" else row | {"finished_at": datetime.now(timezone.utc)}
    )

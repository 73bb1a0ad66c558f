"""Of two runs on one date the newer one writes: a retry, not the driver that its scheduler gave up.

A run has a place among those of its date (`Context.order`), which its rows in `runs` tell the others, and
which every commit of a nightly table carries (`Tables.replace_date`): what an older run commits after a newer
one is refused by the table itself.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame

from allmrec.errors import SupersededError
from allmrec.runtime.context import Context
from allmrec.runtime.runs import NIGHT, RunRow, StepRun, of_date, place


def begin(context: Context, run_date: date) -> Context:
    """Return the context of a new run for this date, which supersedes every run of it that is at work.

    Its place is after theirs, also where this machine's clock is behind.
    """
    return context.with_new_run(
        after=max((row.run_order or 0 for row in of_date(context, run_date)), default=0)
    )


def newer_run(context: Context, run_date: date) -> RunRow | None:
    """Return a row of the newest run on a night of this date, None where no other is newer than this one."""
    others = [row for row in of_date(context, run_date) if row.step in NIGHT and row.run_id != context.run_id]
    newest = max(others, key=place, default=None)
    return newest if newest is not None and (newest.run_order or 0) > context.order else None


def require_newest(context: Context, run_date: date) -> None:
    """Raise SupersededError, naming the winner, where a newer run works on a night of this date."""
    newer = newer_run(context, run_date)
    if newer is not None:
        raise SupersededError(
            f"run {context.run_id} of {run_date}: run {newer.run_id} ({newer.step}, "
            f"{newer.started_at:%Y-%m-%d %H:%M:%S} UTC) is newer and works on the same date; "
            "this one stops and writes nothing more"
        )


def replace_date(context: Context, run: StepRun, table: str, rows: DataFrame, run_date: date) -> None:
    """Replace a date's rows in one commit and note them as the step's output.

    Raises SupersededError where a newer run works on the date, and what `Tables.replace_date` raises.
    """
    require_newest(context, run_date)
    try:
        run.outputs[table] = context.tables.replace_date(table, rows, run_date, next(context.commits))
        run.table_ids[table] = context.tables.table_id(table)
    except SupersededError:
        require_newest(context, run_date)
        raise

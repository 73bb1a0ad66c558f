"""interactions, items, users → user_sequences (and rejected_rows) as of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import functions as F

from allmrec.data import interactions as events
from allmrec.data.interactions import counted
from allmrec.data.rejection import merge_rejected, split_rejected
from allmrec.data.user_sequences import num_tied, user_sequences
from allmrec.night.new_events import CannotAdvance, New, whats_new
from allmrec.runtime.inputs import CheckedLog, Inputs, step_of_sequences
from allmrec.runtime.night import Night, StepRun

MAX_DAYS_WITHOUT_EVENTS = 366
"""Days between the newest event and the run date that make a night warn."""


def run_sequences(night: Night) -> None:
    """Write `user_sequences` of the night's date in one commit.

    If the sequences of an earlier night can be advanced, only new rows of the log are read. The result is the
    same.
    """
    inputs = Inputs.pinned(night, "sequences")
    step = step_of_sequences(night, inputs)
    if step.is_there():
        return
    context = night.context
    settings = context.config.sequences
    with step.recorded(inputs.versions, inputs.table_ids) as run:
        with run.part("read", "check the log and the catalogue, reject bad rows with a reason"):
            new = new_rows(inputs, run)
            rows = inputs.log_to_check(night.run_date) if new is None else new.log
            log = inputs.checked(rows, run.keep, None if new is None else new.known)
            num_rejected = merge_rejected(context.tables, log.rejected, "sequences", context.run_id)
            if new is None:
                inputs.require_good_rows(log)
        with run.part("write", "order every user's events, oldest first"):
            good = counted(log.interactions, settings)
            last = None if new is None else new.last
            sequences = user_sequences(log.rows, good, inputs.users(), settings, night.run_date, last)
            run.replace("user_sequences", sequences)
        run.counts = {
            "users_out": run.outputs["user_sequences"].num_rows,
            **_histories(run),
            **counts(log, num_rejected, new),
        }


def warn_of_old_events(run: StepRun, newest: date | None) -> None:
    """Warn if the run date is years after the newest event."""
    num_days = 0 if newest is None else (run.night.run_date - newest).days
    if num_days > MAX_DAYS_WITHOUT_EVENTS:
        run.report(
            f"warning: the newest event that counts is of {newest}, {num_days:,} days before "
            "the run date; check --run-date and the log"
        )


def new_rows(inputs: Inputs, run: StepRun) -> New | None:
    """Return the new rows since an earlier night, or None."""
    try:
        new = whats_new(inputs, run)
    except CannotAdvance as reason:
        run.report(f"reads the whole log: {reason}")
        return None
    run.report(f"reads what is new since the night of {new.since}")
    return new


def _histories(run: StepRun) -> dict[str, int]:
    """Return the numbers of users without a history and of tied events. Report them.

    Warns about a log that ends long before the run date.
    """
    written = run.written("user_sequences")
    empty, num_events, tied, newest = written.agg(
        F.count_if(F.size("item_ids") == 0),
        F.coalesce(F.sum(F.size("item_ids")), F.lit(0)),
        F.coalesce(F.sum(num_tied(F.col("event_times"))), F.lit(0)),
        F.max("last_event_time").cast("date"),
    ).collect()[0]
    warn_of_old_events(run, newest)
    if tied:
        run.report(
            f"{tied:,} of {num_events:,} events have the time of another event of their user: "
            "a hash orders them"
        )
    return {"users_without_history": empty, "tied_events": tied}


def counts(log: CheckedLog, num_rejected: int, new: New | None) -> dict[str, int]:
    """Return how many rows of log and catalogue are good and rejected.

    An incremental night adds its counts to those of the night before. Users who were rebuilt are not counted
    again.
    """
    bad_items = log.rejected.where("table = 'items'").count()
    numbers: dict[str, int] = {}
    if new is None or new.rebuilt is None:
        num_good = log.interactions.count()
        num_bad = num_rejected - bad_items
    else:
        rows = log.rows.join(new.rebuilt, "user_id", "left_anti")
        num_good, num_bad = (part.count() for part in split_rejected(rows, "interactions", events.COLUMNS))
    if new is not None:
        before = new.record.counts
        num_good += before["good_events"]
        num_bad += before["rejected_events"]
        numbers["rebuilt_users"] = 0 if new.rebuilt is None else new.rebuilt.count()
    return {
        "good_rows": num_good + log.items.count(),
        "rejected_rows": num_bad + bad_items,
        "good_events": num_good,
        "rejected_events": num_bad,
        **numbers,
    }

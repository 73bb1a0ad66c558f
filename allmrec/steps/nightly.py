"""A night: sequences → candidates → score → publish for one run_date; a backfill: nights in order."""

from __future__ import annotations

from datetime import date, timedelta

from allmrec.errors import InputError
from allmrec.runtime.bundle_store import choose_bundle
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.steps.candidates import run_candidates
from allmrec.steps.publish import run_publish
from allmrec.steps.score import run_score
from allmrec.steps.sequences import run_sequences


def run_nightly(context: Context, run_date: date, inputs: Inputs | None = None) -> None:
    """Run the four steps, each skipped when its output for the same inputs is there.

    All read the same versions of the tables: `inputs`, by default the newest. Raises BundleError, before
    anything is written, where no bundle is old enough.
    """
    chosen = choose_bundle(context, run_date)
    inputs = inputs or Inputs.newest(context)
    run_sequences(context, run_date, inputs)
    run_candidates(context, run_date, chosen)
    run_score(context, run_date)
    run_publish(context, run_date, inputs)


def run_backfill(context: Context, first: date, last: date) -> None:
    """Run the nights from `first` to `last`, both included, on the input tables as they stand at the start.

    Each night is a run of its own in `runs`. Raises InputError where `last` is before `first`.
    """
    if last < first:
        raise InputError(f"--from {first} --to {last}: the last date is before the first")
    inputs = Inputs.newest(context)
    for day in range((last - first).days + 1):
        run_nightly(context.with_new_run(), first + timedelta(days=day), inputs)

"""A night: sequences → candidates → score → publish for one run_date; a backfill: nights in order."""

from __future__ import annotations

from datetime import date, timedelta

from allmrec.errors import InputError
from allmrec.runtime.bundle_store import choose_bundle
from allmrec.runtime.context import Context, new_run_id
from allmrec.steps.candidates import run_candidates
from allmrec.steps.publish import run_publish
from allmrec.steps.score import run_score
from allmrec.steps.sequences import run_sequences


def run_nightly(context: Context, run_date: date) -> None:
    """Run the four steps, each skipped when its output for the same inputs is there. Fails before writing where no bundle is old enough."""
    choose_bundle(context, run_date)
    for step in (run_sequences, run_candidates, run_score, run_publish):
        step(context, run_date)


def run_backfill(context: Context, first: date, last: date) -> None:
    """Run the nights from `first` to `last`, both included, on the input tables as they stand at the start; each is a run of its own in `runs`."""
    if last < first:
        raise InputError(f"--from {first} --to {last}: the last date is before the first")
    versions = context.versions
    for day in range((last - first).days + 1):
        context.run_id = new_run_id()
        context.pin(versions)
        run_nightly(context, first + timedelta(days=day))

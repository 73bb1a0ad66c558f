"""A night: sequences → candidates → score → publish. A backfill: several nights."""

from __future__ import annotations

from datetime import date, timedelta

from allmrec.errors import ConfigError
from allmrec.runtime.bundle_store import choose_bundle
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import require_item_columns
from allmrec.runtime.night import Night
from allmrec.steps.candidates import run_candidates
from allmrec.steps.publish import run_publish
from allmrec.steps.score import run_score
from allmrec.steps.sequences import run_sequences


def run_nightly(context: Context, run_date: date) -> None:
    """Run the four steps of a date as one run. Steps with unchanged inputs are skipped.

    All read the versions of the input tables that the date's first run read (with `--refresh` the newest).
    Raises, before it writes, BundleError where no bundle is old enough, ConfigError where `items` lacks a
    column of `publish.item_columns`.
    """
    night = Night(context, run_date)
    choose_bundle(night)
    require_item_columns(context)
    night = night.with_new_run()
    run_sequences(night)
    run_candidates(night)
    run_score(night)
    run_publish(night)


def run_backfill(context: Context, first: date, last: date) -> None:
    """Run the nights from `first` to `last`, each as a run.

    Both dates are included. Raises ConfigError where `last` is before `first`.
    """
    if last < first:
        raise ConfigError(f"--from {first} --to {last}: the last date is before the first; exchange them")
    for day in range((last - first).days + 1):
        run_nightly(context, first + timedelta(days=day))

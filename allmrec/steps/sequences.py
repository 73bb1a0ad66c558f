"""interactions, items, users → user_sequences (and rejected_rows) as of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import functions as F

from allmrec.config import fingerprint
from allmrec.data.interactions import counted
from allmrec.data.rejection import merge_rejected
from allmrec.data.user_sequences import user_sequences
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.runs import already_there, recorded


def run_sequences(context: Context, run_date: date, inputs: Inputs | None = None) -> None:
    """Write `user_sequences` of run_date in one commit; `inputs` are by default the tables as they stand."""
    inputs = inputs or Inputs.newest(context)
    settings, rating_range = context.config.sequences, context.config.importing.rating_range
    step_fingerprint = fingerprint(
        step="sequences",
        run_date=str(run_date),
        settings=settings,
        rating_range=rating_range,
        versions=dict(inputs.versions),
    )
    if already_there(context, "sequences", run_date, step_fingerprint, "user_sequences"):
        return
    with recorded(context, "sequences", run_date, step_fingerprint, inputs.versions) as run:
        with run.part("read", "check the log and the catalogue, reject bad rows with a reason"):
            log = inputs.good_interactions(run_date, run.keep)
            num_rejected = merge_rejected(context.tables, log.rejected, "sequences", context.run_id)
        with run.part("write", "order every user's events, oldest first"):
            users = log.interactions.select("user_id").distinct()
            rows = user_sequences(
                counted(log.interactions, settings), inputs.users(), users, settings, run_date
            )
            context.tables.replace_date("user_sequences", rows, run_date)
        written = context.tables.read_date("user_sequences", run_date)
        run.counts = {
            "users_out": written.count(),
            "users_without_history": written.where(F.size("item_ids") == 0).count(),
            "rejected_rows": num_rejected,
        }

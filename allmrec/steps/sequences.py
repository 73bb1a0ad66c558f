"""interactions, items, users → user_sequences (and rejected_rows) as of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import functions as F

from allmrec.data.interactions import counted
from allmrec.data.rejection import merge_rejected
from allmrec.data.user_sequences import user_sequences
from allmrec.runtime.context import Context
from allmrec.runtime.decides import step_fingerprint
from allmrec.runtime.fencing import replace_date
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.runs import already_there, recorded


def run_sequences(context: Context, run_date: date) -> None:
    """Write `user_sequences` of run_date in one commit, from the versions of the date's first run."""
    settings = context.config.sequences
    inputs = Inputs.pinned(context, "sequences", run_date)
    mark = step_fingerprint("sequences", context.config, run_date, versions=dict(inputs.versions))
    if already_there(context, "sequences", run_date, mark):
        return
    with recorded(context, "sequences", run_date, mark, inputs.versions) as run:
        with run.part("read", "check the log and the catalogue, reject bad rows with a reason"):
            log = inputs.good_interactions(run_date, run.keep)
            num_rejected = merge_rejected(context.tables, log.rejected, "sequences", context.run_id)
            num_good = log.interactions.count() + log.items.count()
        with run.part("write", "order every user's events, oldest first"):
            users = log.interactions.select("user_id").distinct()
            rows = user_sequences(
                counted(log.interactions, settings), inputs.users(), users, settings, run_date
            )
            replace_date(context, run, "user_sequences", rows, run_date)
        written = context.tables.read_date("user_sequences", run_date, run.outputs["user_sequences"].version)
        run.counts = {
            "users_out": run.outputs["user_sequences"].num_rows,
            "users_without_history": written.where(F.size("item_ids") == 0).count(),
            "rejected_rows": num_rejected,
            "good_rows": num_good,
        }

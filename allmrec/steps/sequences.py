"""interactions, items, users → user_sequences (and rejected_rows) as of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.data.interactions import COLUMNS, before, counted, split_rejected, tagged
from allmrec.data.user_sequences import user_sequences
from allmrec.runtime.context import Context, Stopwatch
from allmrec.runtime.runs import Outcome, record
from allmrec.tables.schemas import TABLES


def good_interactions(context: Context, run_date: date) -> tuple[DataFrame, DataFrame, DataFrame]:
    """Return (good interactions before the cut-off, good items, rejected rows of both) of the input tables as they stand in this run."""
    items, bad_items = context.catalogue()
    everything = context.require("interactions")
    # Rows without a time lie before no cut-off; they are looked at so that they can be rejected.
    log = before(everything, run_date).unionByName(everything.where(F.col("event_time").isNull()))
    rows = context.keep(tagged(log, items, context.config.importing.rating_range))
    good, bad = split_rejected(rows, "interactions", COLUMNS)
    return good, items, bad.unionByName(bad_items)


def reject(context: Context, step: str, rejected: DataFrame) -> int:
    """Merge rejected rows (first sighting kept: a rerun adds nothing) and return how many distinct ones this run saw."""
    rows = (
        rejected.withColumn("step", F.lit(step)).withColumn("run_id", F.lit(context.run_id)).withColumn("first_seen", F.current_timestamp())
    ).select(*TABLES["rejected_rows"].schema.fieldNames())  # fmt: skip
    rows = context.keep(rows.dropDuplicates(list(TABLES["rejected_rows"].key)))
    num_rows = rows.count()
    if num_rows:
        context.tables.merge("rejected_rows", rows, update=False)
    return num_rows


def run_sequences(context: Context, run_date: date) -> str:
    """Write `user_sequences` of run_date in one commit; return the step's fingerprint."""

    def work(watch: Stopwatch) -> Outcome:
        with watch("read", "check the log and the catalogue, reject bad rows with a reason"):
            good, _, rejected = good_interactions(context, run_date)
            num_rejected = reject(context, "sequences", rejected)
        with watch("write", "order every user's events, oldest first"):
            settings = context.config.sequences
            rows = user_sequences(
                counted(good, settings),
                context.read_input("users"),
                good.select("user_id").distinct(),
                settings,
                run_date,
            )
            context.tables.replace_date("user_sequences", rows, run_date)
        written = context.tables.read_date("user_sequences", run_date)
        num_users = written.count()
        num_empty = written.where(F.size("item_ids") == 0).count()
        return Outcome(
            counts={"users_out": num_users, "users_without_history": num_empty, "rejected_rows": num_rejected}
        )

    config = context.config
    _, mark = record(context, "sequences", run_date, "user_sequences", work,
                     settings=config.sequences, rating_range=config.importing.rating_range, versions=context.versions)  # fmt: skip
    return mark

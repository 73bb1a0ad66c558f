"""user_sequences, seen items, items, bundle → candidates of a run_date."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.data.interactions import before
from allmrec.data.user_sequences import seen_items
from allmrec.llm.frozen import FrozenLLM
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context, Stopwatch
from allmrec.runtime.progress import Progress
from allmrec.runtime.runs import Outcome, done, record
from allmrec.runtime.workers import WorkerModel, by_chunk, in_chunks
from allmrec.tables.schemas import TABLES

SPEED_ONLY = {"chunk_users", "block_items"}


def available_items(context: Context) -> frozenset[str]:
    """Return the ids of the items that can be recommended: valid rows of the catalogue that are available (default: they are)."""
    good, _ = context.catalogue()
    return frozenset(row[0] for row in good.where("available").select("item_id").collect())


def histories(context: Context, run_date: date) -> DataFrame:
    """Return (user_id, item_ids, seen) of every user of the date; `seen` from the whole log before the cut-off, empty if not excluded."""
    sequences = context.tables.read_date("user_sequences", run_date).select("user_id", "item_ids")
    if not context.config.candidates.exclude_seen:
        return sequences.withColumn("seen", F.array().cast("array<string>"))
    seen = seen_items(before(context.require("interactions"), run_date))
    return sequences.join(seen, "user_id", "left").withColumn(
        "seen", F.coalesce("seen", F.array().cast("array<string>"))
    )


def run_candidates(context: Context, run_date: date) -> str:
    """Write `candidates` of run_date in one commit; return the step's fingerprint."""
    before_this = done(context, "sequences", run_date)
    context.pin(before_this["input_versions"])
    chosen = bundle_store.choose_bundle(context, run_date)

    def work(watch: Stopwatch) -> Outcome:
        with watch("bundle", "load the model bundle, embed items added or reworded since it was trained"):
            bundle = bundle_store.bundle_of_night(context, chosen, FrozenLLM.load(context.config.llm))
            model = WorkerModel.ship(
                context.spark.sparkContext, bundle.folder, bundle.bundle_id, context.config
            )
            available = context.spark.sparkContext.broadcast(available_items(context))
        with watch("retrieve", "find every user's best items in the whole catalogue"):
            users = histories(context, run_date)
            progress = Progress(context, "users", users.count())
            schema = TABLES["candidates"].schema
            add = progress.counter

            def retrieve(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
                for frame in by_chunk(frames):
                    rows = model.retriever(available.value).retrieve(frame[["user_id", "item_ids", "seen"]])
                    rows.insert(0, "run_date", run_date)
                    add.add(len(rows))
                    yield rows[schema.fieldNames()]

            with progress:
                chunks = in_chunks(users, progress.total, context.config.candidates.chunk_users)
                context.tables.replace_date("candidates", chunks.mapInPandas(retrieve, schema), run_date)
        written = context.tables.read_date("candidates", run_date)
        num_empty = written.where(F.size("item_ids") == 0).count()
        return Outcome(counts={"users_in": progress.total, "users_out": written.count(), "users_without_candidates": num_empty},
                       bundle_id=bundle.bundle_id)  # fmt: skip

    _, mark = record(context, "candidates", run_date, "candidates", work, bundle=chosen["bundle_id"], versions=context.versions,
                     settings=context.config.candidates.model_dump(exclude=SPEED_ONLY), previous=before_this["fingerprint"])  # fmt: skip
    return mark

"""user_sequences, seen items, items, bundle → candidates of a run_date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import pandas as pd
from pyspark import Accumulator, Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.bundle import Manifest
from allmrec.config import fingerprint
from allmrec.llm.frozen import FrozenLLM
from allmrec.runtime import bundle_store
from allmrec.runtime.chunks import by_chunk, in_chunks
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.progress import counting
from allmrec.runtime.runs import already_there, finished, recorded
from allmrec.runtime.workers import WorkerModel
from allmrec.tables.schemas import TABLES

SPEED_ONLY = {"chunk_users", "block_items"}
"""Settings of `candidates` that change no row."""


def run_candidates(context: Context, run_date: date, chosen: Manifest | None = None) -> None:
    """Write `candidates` of run_date in one commit, with the bundle `chosen`, by default the date's.

    Raises InputError where the date's sequences are missing.
    """
    sequences = finished(context, "sequences", run_date)
    inputs = Inputs(context, sequences.input_versions or {})
    chosen = chosen or bundle_store.choose_bundle(context, run_date)
    step_fingerprint = fingerprint(
        step="candidates",
        run_date=str(run_date),
        bundle=chosen.bundle_id,
        versions=dict(inputs.versions),
        settings=context.config.candidates.model_dump(exclude=SPEED_ONLY),
        previous=sequences.fingerprint,
    )
    if already_there(context, "candidates", run_date, step_fingerprint, "candidates"):
        return
    with recorded(context, "candidates", run_date, step_fingerprint, inputs.versions) as run:
        with run.part("bundle", "load the model bundle, embed items added or reworded since it was trained"):
            llm = FrozenLLM.load(context.config.llm, run.report)
            bundle = bundle_store.bundle_of_night(inputs, chosen, llm)
            spark = context.spark.sparkContext
            model = WorkerModel.ship(spark, bundle.folder, bundle.bundle_id, context.config)
            available = spark.broadcast(available_items(inputs))
        with run.part("retrieve", "find every user's best items in the whole catalogue"):
            users = histories(inputs, run_date)
            num_users = users.count()
            chunks = in_chunks(users, num_users, context.config.candidates.chunk_users)
            with counting(context.spark, run.report, "retrieve", num_users, "users") as num_done:
                retrieve = retrieving(model, available, run_date, num_done)
                rows = chunks.mapInPandas(retrieve, TABLES["candidates"].schema)
                context.tables.replace_date("candidates", rows, run_date)
        written = context.tables.read_date("candidates", run_date)
        run.bundle_id = bundle.bundle_id
        run.counts = {
            "users_in": num_users,
            "users_out": written.count(),
            "users_without_candidates": written.where(F.size("item_ids") == 0).count(),
        }


def available_items(inputs: Inputs) -> frozenset[str]:
    """Return the ids of the items that can be recommended: good rows of the catalogue that are available."""
    good, _ = inputs.catalogue()
    return frozenset(row[0] for row in good.where("available").select("item_id").collect())


def histories(inputs: Inputs, run_date: date) -> DataFrame:
    """Return (user_id, history, seen) of every user; `seen` is empty where seen items are not excluded."""
    context, nothing = inputs.context, F.array().cast("array<string>")
    sequences = context.tables.read_date("user_sequences", run_date)
    users = sequences.select("user_id", F.col("item_ids").alias("history"))
    if not context.config.candidates.exclude_seen:
        return users.withColumn("seen", nothing)
    return users.join(inputs.seen(run_date), "user_id", "left").withColumn(
        "seen", F.coalesce("seen", nothing)
    )


def retrieving(
    model: WorkerModel, available: Broadcast[frozenset[str]], run_date: date, num_done: Accumulator[int]
) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for `mapInPandas`: user_id, history, seen in, rows of `candidates` out."""
    columns = TABLES["candidates"].schema.fieldNames()

    def retrieve(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for users in by_chunk(batches):
            retriever = model.retriever(available.value)
            lists = retriever.retrieve(*(users[name].tolist() for name in ("user_id", "history", "seen")))
            num_done.add(len(users))
            yield lists.to_frame().assign(run_date=run_date)[columns]

    return retrieve

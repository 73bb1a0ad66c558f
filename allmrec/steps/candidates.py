"""user_sequences, seen items, items, bundle → candidates of a run_date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import numpy as np
import pandas as pd
from pyspark import Accumulator, Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.bundle import Manifest
from allmrec.errors import InputError
from allmrec.runtime import bundle_store
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Finished, Night
from allmrec.runtime.workers import WorkerModel
from allmrec.scoring.inputs_hash import inputs_hashes
from allmrec.scoring.retrieval import CHUNK_USERS
from allmrec.spark.chunks import by_chunk, in_chunks
from allmrec.spark.progress import counting
from allmrec.tables.schemas import TABLES


def run_candidates(night: Night) -> None:
    """Write `candidates` of the night's date in one commit.

    Raises InputError where the date's sequences are missing, BundleError where no bundle is old enough.
    """
    night = night.with_resolved_dtype()
    sequences = night.done("sequences")
    if "good_events" not in sequences.row.counts:
        raise InputError(
            f"sequences of {night.run_date}: made by an older version, without the items that users have "
            f"seen; run `allmrec sequences --run-date {night.run_date}`"
        )
    chosen = bundle_store.choose_bundle(night)
    step = night.step("candidates", after=sequences, bundle=chosen.bundle_id)
    if step.is_there():
        return
    context = night.context
    inputs = Inputs.of_step(sequences)
    with step.recorded(inputs.versions, inputs.table_ids) as run:
        with run.part("bundle", "load the model bundle, embed items added or reworded since it was trained"):
            folder, bundle = bundle_store.bundle_of_night(inputs, chosen, run.report)
            spark = context.spark.sparkContext
            model = WorkerModel.ship(spark, folder, bundle.bundle_id, context.config)
            available = available_items(inputs, bundle)
            sent = spark.broadcast(available)
        with run.part("retrieve", "find every user's best items in the whole catalogue"):
            users = histories(sequences)
            num_users = users.count()
            chunks = in_chunks(users, num_users, CHUNK_USERS)
            with counting(context.spark, run.report, "retrieve", num_users, "users") as num_done:
                retrieve = retrieving(model, sent, night.run_date, num_done)
                rows = chunks.mapInPandas(retrieve, TABLES["candidates"].schema)
                run.replace("candidates", rows)
        written = run.written("candidates")
        run.bundle_id = bundle.bundle_id
        run.counts = {
            "users_in": num_users,
            "users_out": run.outputs["candidates"].num_rows,
            "users_without_candidates": written.where(F.size("item_ids") == 0).count(),
            "available_items": int(available.sum()),
        }


def available_items(inputs: Inputs, bundle: Manifest) -> np.ndarray:
    """Return which items of a bundle are good and available, [I+1] bool."""
    good, _ = inputs.catalogue()
    ids = good.where("available").select("item_id")
    known = bundle_store.items_of_bundle(inputs.context, bundle.bundle_id)
    found: pd.DataFrame = known.join(ids, "item_id", "left_semi").select("item_idx").toPandas()
    available = np.zeros(bundle.num_items + 1, dtype=bool)
    available[found["item_idx"].to_numpy()] = True
    return available


def histories(sequences: Finished) -> DataFrame:
    """Return (user_id, history, seen) of every user in the night's `user_sequences`.

    `seen` is empty if seen items are not excluded.
    """
    excludes_seen = sequences.night.context.config.candidates.exclude_seen
    seen = F.col("seen_item_ids") if excludes_seen else F.array().cast("array<string>")
    return sequences.read("user_sequences").select(
        "user_id", F.col("item_ids").alias("history"), seen.alias("seen")
    )


def retrieving(
    model: WorkerModel, available: Broadcast[np.ndarray], run_date: date, num_done: Accumulator[int]
) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for `mapInPandas` that makes rows of `candidates`.

    Its input has user_id, history and seen.
    """
    columns = TABLES["candidates"].schema.fieldNames()

    def retrieve(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for users in by_chunk(batches):
            retriever = model.retriever(available.value)
            lists = retriever.retrieve(*(users[name].tolist() for name in ("user_id", "history", "seen")))
            num_done.add(len(users))
            hashes = inputs_hashes(lists, model.bundle())
            yield lists.to_frame().assign(run_date=run_date, inputs_hash=hashes)[columns]

    return retrieve

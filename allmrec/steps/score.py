"""candidates, user_sequences, bundle → recommendations of a run_date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta, timezone

import pandas as pd
from pyspark import Accumulator, StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.config import Config
from allmrec.errors import InputError
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.served import rank
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context, Stopwatch
from allmrec.runtime.progress import Progress
from allmrec.runtime.runs import Outcome, done, record
from allmrec.runtime.workers import WorkerModel, by_chunk, in_chunks
from allmrec.tables.schemas import TABLES

SPEED_ONLY = {"chunk_users", "chunk_users_without_llm", "token_budget", "num_threads", "bundle_id"}


def gets_llm(config: Config, run_date: date) -> Column:
    """Return the boolean column that says whether a user's list is ordered with the LLM: active in the last days, and an order that reads it."""
    if config.scoring.order == "cf":
        return F.lit(False)
    if config.scoring.active_within_days is None:
        return F.size("history") > 0
    since = datetime.combine(run_date, datetime.min.time(), timezone.utc) - timedelta(
        days=config.scoring.active_within_days
    )
    return F.coalesce(F.col("last_event_time") >= F.lit(since), F.lit(False)) & (F.size("history") > 0)


def to_score(context: Context, run_date: date) -> DataFrame:
    """Return one row a user with at least one candidate: history, candidates, their scores and sources, use_llm."""
    sequences = context.tables.read_date("user_sequences", run_date)
    users = sequences.select("user_id", F.col("item_ids").alias("history"), "last_event_time")
    candidates = context.tables.read_date("candidates", run_date)
    columns = candidates.select(
        "user_id", F.col("item_ids").alias("candidates"), "cf_scores", "text_scores", "sources"
    )
    rows = columns.where(F.size("candidates") > 0).join(users, "user_id", "inner")
    return rows.withColumn("use_llm", gets_llm(context.config, run_date)).drop("last_event_time")


def scoring_function(
    model: WorkerModel, scored: dict[bool, Accumulator[int]], run_id: str
) -> Callable[[Iterable[pd.DataFrame]], Iterable[pd.DataFrame]]:
    """Return the function for `mapInPandas`: chunks of users in, ranked rows of `recommendations` (without run_date and scored_at) out.

    `scored` counts the users done, those with the LLM under True.
    """

    def score(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in by_chunk(frames):
            use_llm = bool(frame["use_llm"].iat[0])
            scorer = model.scorer(use_llm)
            rows = rank(scorer.score(frame.drop(columns="chunk")), scorer.bundle.blends, model.config)
            scored[use_llm].add(len(frame))
            yield rows.assign(bundle_id=model.bundle_id, run_id=run_id)

    return score


def unservable(context: Context, run_date: date) -> dict[str, int]:
    """Return how many users of the date have no candidate, by reason."""
    candidates = (
        context.tables.read_date("candidates", run_date).where(F.size("item_ids") == 0).select("user_id")
    )
    sequences = context.tables.read_date("user_sequences", run_date).select("user_id", "num_interactions")
    reason = F.when(F.col("num_interactions") > 0, "unservable_saw_every_item").otherwise(
        "unservable_no_item_available"
    )
    return {row[0]: row[1] for row in candidates.join(sequences, "user_id").groupBy(reason).count().collect()}


def run_score(context: Context, run_date: date) -> str:
    """Write `recommendations` of run_date in one commit; return the step's fingerprint.

    Raises InputError, before anything is written, where users in ≠ users out + unservable.
    """
    before_this = done(context, "candidates", run_date)
    context.pin(before_this["input_versions"])
    bundle_id = before_this["bundle_id"]

    def work(watch: Stopwatch) -> Outcome:
        with watch("bundle", "send the model bundle to the workers, make sure the LLM is ready"):
            FrozenLLM.load(context.config.llm)
            folder = bundle_store.fetch_bundle(context, bundle_id)
            model = WorkerModel.ship(context.spark.sparkContext, folder, bundle_id, context.config)
        with watch("score", "let the LLM and the blend order every user's candidates"):
            users = to_score(context, run_date).persist(StorageLevel.DISK_ONLY)
            asked, others = users.where("use_llm"), users.where("NOT use_llm")
            with_llm = Progress(context, "users with the LLM", asked.count())
            without_llm = Progress(context, "users without it", others.count())
            schema = TABLES["recommendations"].schema
            ranked = [field for field in schema if field.name not in ("run_date", "scored_at")]
            function = scoring_function(
                model, {True: with_llm.counter, False: without_llm.counter}, context.run_id
            )
            settings = context.config.scoring
            chunks = in_chunks(asked, with_llm.total, settings.chunk_users).unionByName(
                in_chunks(others, without_llm.total, settings.chunk_users_without_llm)
            )
            with with_llm, without_llm:
                rows = chunks.mapInPandas(function, type(schema)(ranked)).persist(StorageLevel.DISK_ONLY)
                rows.count()
        with watch("write", "check that no user is lost, then replace the date in one commit"):
            counts = _counts(context, rows, run_date)
            stamped = rows.withColumn("run_date", F.lit(run_date)).withColumn(
                "scored_at", F.current_timestamp()
            )
            context.tables.replace_date("recommendations", stamped.select(*schema.fieldNames()), run_date)
            rows.unpersist()
            users.unpersist()
        return Outcome(counts=counts, bundle_id=bundle_id)

    _, mark = record(context, "score", run_date, "recommendations", work, bundle=bundle_id, previous=before_this["fingerprint"],
                     settings=context.config.scoring.model_dump(exclude=SPEED_ONLY))  # fmt: skip
    return mark


def _counts(context: Context, rows: DataFrame, run_date: date) -> dict[str, int]:
    users = rows.where("rank = 1").groupBy("source", "fallback_reason").count().collect()
    counts = {
        "users_in": context.tables.read_date("user_sequences", run_date).count(),
        "users_out": sum(row["count"] for row in users),
    }
    for row in users:
        for name in (
            f"source_{row['source']}",
            f"fallback_{row['fallback_reason']}" if row["fallback_reason"] else None,
        ):
            if name:
                counts[name] = counts.get(name, 0) + row["count"]
    lost = unservable(context, run_date)
    counts |= lost | {"unservable": sum(lost.values())}
    if counts["users_in"] != counts["users_out"] + counts["unservable"]:
        raise InputError(
            f"score of {run_date}: {counts['users_in']} users in, {counts['users_out']} out and {counts['unservable']} unservable, expected none "
            "lost; nothing was written; run the night again (allmrec nightly)"
        )
    return counts

"""candidates, user_sequences, bundle → recommendations of a run_date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone

import pandas as pd
from pyspark import Accumulator, StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import ScoringConfig, fingerprint
from allmrec.errors import InputError
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import served_order
from allmrec.ranking.served import ranked_rows
from allmrec.runtime import bundle_store
from allmrec.runtime.chunks import by_chunk, in_chunks
from allmrec.runtime.context import Context
from allmrec.runtime.progress import counting
from allmrec.runtime.runs import StepRun, already_there, finished, recorded
from allmrec.runtime.workers import WorkerModel
from allmrec.tables.schemas import TABLES

SPEED_ONLY = {"chunk_users", "chunk_users_without_llm", "token_budget", "num_threads", "bundle_id"}
"""Settings of `scoring` that change no row, and `bundle_id`, which is a part of the fingerprint by itself."""

SCHEMA = TABLES["recommendations"].schema
RANKED = T.StructType([field for field in SCHEMA if field.name not in ("run_date", "scored_at")])
"""What workers return of it."""


def run_score(context: Context, run_date: date) -> None:
    """Write `recommendations` of run_date in one commit.

    Raises InputError, before anything is written, where the date has no candidates, or users in ≠ users out +
    unservable.
    """
    candidates = finished(context, "candidates", run_date)
    bundle_id = str(candidates.bundle_id)
    step_fingerprint = fingerprint(
        step="score",
        run_date=str(run_date),
        bundle=bundle_id,
        previous=candidates.fingerprint,
        settings=context.config.scoring.model_dump(exclude=SPEED_ONLY),
    )
    if already_there(context, "score", run_date, step_fingerprint, "recommendations"):
        return
    with recorded(context, "score", run_date, step_fingerprint, candidates.input_versions or {}) as run:
        with run.part("bundle", "send the model bundle to the workers, make sure the LLM is ready"):
            FrozenLLM.load(context.config.llm, run.report)
            folder = bundle_store.fetch_bundle(context, bundle_id)
            model = WorkerModel.ship(context.spark.sparkContext, folder, bundle_id, context.config)
        with run.part("score", "let the LLM and the blend order every user's candidates"):
            users = run.keep(users_to_score(context, run_date), StorageLevel.DISK_ONLY)
            rows = scored_rows(context, run, model, users)
        with run.part("write", "check that no user is lost, then replace the date in one commit"):
            run.counts = counts(context, rows, run_date)
            raise_if_users_are_lost(run.counts, run_date)
            stamped = rows.withColumns({"run_date": F.lit(run_date), "scored_at": F.current_timestamp()})
            context.tables.replace_date("recommendations", stamped.select(*SCHEMA.fieldNames()), run_date)
        run.bundle_id = bundle_id


def users_to_score(context: Context, run_date: date) -> DataFrame:
    """Return one row per user with at least one candidate: what `CandidateLists.from_frame` reads."""
    sequences = context.tables.read_date("user_sequences", run_date)
    users = sequences.select("user_id", F.col("item_ids").alias("history"), "last_event_time")
    candidates = context.tables.read_date("candidates", run_date)
    lists = candidates.select("user_id", "item_ids", "cf_scores", "text_scores", "sources")
    rows = lists.where(F.size("item_ids") > 0).join(users, "user_id", "inner")
    return rows.withColumn("use_llm", uses_llm(context.config.scoring, run_date)).drop("last_event_time")


def uses_llm(settings: ScoringConfig, run_date: date) -> Column:
    """Return whether the LLM is asked about a user: one active lately, and an order that reads it."""
    if settings.order == "cf":
        return F.lit(False)
    if settings.active_within_days is None:
        return F.size("history") > 0
    midnight = datetime.combine(run_date, datetime.min.time(), timezone.utc)
    since = midnight - timedelta(days=settings.active_within_days)
    return F.coalesce(F.col("last_event_time") >= F.lit(since), F.lit(False)) & (F.size("history") > 0)


def scored_rows(context: Context, run: StepRun, model: WorkerModel, users: DataFrame) -> DataFrame:
    """Return the ranked rows of all users, computed, and kept until the step ends."""
    settings = context.config.scoring
    with_llm, without_llm = users.where("use_llm"), users.where("NOT use_llm")
    num_with_llm, num_without_llm = with_llm.count(), without_llm.count()
    chunks = in_chunks(with_llm, num_with_llm, settings.chunk_users).unionByName(
        in_chunks(without_llm, num_without_llm, settings.chunk_users_without_llm)
    )
    with (
        counting(context.spark, run.report, "score", num_with_llm, "users with the LLM") as with_llm_done,
        counting(context.spark, run.report, "score", num_without_llm, "users without it") as without_llm_done,
    ):
        score = scoring(model, {True: with_llm_done, False: without_llm_done}, context.run_id)
        rows = run.keep(chunks.mapInPandas(score, RANKED), StorageLevel.DISK_ONLY)
        rows.count()
    return rows


def scoring(
    model: WorkerModel, num_done: Mapping[bool, Accumulator[int]], run_id: str
) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for `mapInPandas`: chunks of users in, ranked rows of `recommendations` out.

    `num_done` counts the users, under True those with the LLM.
    """
    settings = model.config.scoring

    def score(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for users in by_chunk(batches):
            use_llm = bool(users["use_llm"].iat[0])
            scorer = model.scorer(use_llm)
            served = served_order(scorer.bundle.blends, settings)
            rows = ranked_rows(scorer.score(CandidateLists.from_frame(users)), served, settings.top_k)
            num_done[use_llm].add(len(users))
            yield rows.assign(bundle_id=model.bundle_id, run_id=run_id)

    return score


def counts(context: Context, rows: DataFrame, run_date: date) -> dict[str, int]:
    """Return the numbers of users in, out (by source and fallback) and unservable (by reason)."""
    groups = rows.where("rank = 1").groupBy("source", "fallback_reason").count().collect()
    numbers = {
        "users_in": context.tables.read_date("user_sequences", run_date).count(),
        "users_out": sum(group["count"] for group in groups),
    }
    for group in groups:
        names = [f"source_{group['source']}"]
        names += [f"fallback_{group['fallback_reason']}"] if group["fallback_reason"] else []
        for name in names:
            numbers[name] = numbers.get(name, 0) + group["count"]
    reasons = unservable(context, run_date)
    return numbers | reasons | {"unservable": sum(reasons.values())}


def unservable(context: Context, run_date: date) -> dict[str, int]:
    """Return how many users of the date have no candidate, by reason."""
    candidates = context.tables.read_date("candidates", run_date)
    users = candidates.where(F.size("item_ids") == 0).select("user_id")
    sequences = context.tables.read_date("user_sequences", run_date).select("user_id", "num_interactions")
    has_history = F.col("num_interactions") > 0
    reason = F.when(has_history, "unservable_saw_every_item").otherwise("unservable_no_item_available")
    return {row[0]: row[1] for row in users.join(sequences, "user_id").groupBy(reason).count().collect()}


def raise_if_users_are_lost(numbers: Mapping[str, int], run_date: date) -> None:
    """Raise InputError unless users in = users out + unservable."""
    if numbers["users_in"] != numbers["users_out"] + numbers["unservable"]:
        raise InputError(
            f"score of {run_date}: {numbers['users_in']} users in, {numbers['users_out']} out and "
            f"{numbers['unservable']} unservable, expected none lost; nothing was written; "
            "run the night again (allmrec nightly)"
        )

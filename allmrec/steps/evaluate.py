"""Held-out last items → the same scoring → evaluation_predictions, evaluation_results and a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec import seeds
from allmrec.bundle import Bundle, load_bundle
from allmrec.data.interactions import counted
from allmrec.data.splits import split
from allmrec.data.user_sequences import full_sequences
from allmrec.errors import BundleError
from allmrec.evaluation.leave_one_out import MODELS, model_scores, ranks_of_candidates, sample_negatives
from allmrec.evaluation.report import results, table
from allmrec.llm.frozen import FrozenLLM
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context, Stopwatch
from allmrec.runtime.progress import Progress
from allmrec.runtime.runs import Outcome, record
from allmrec.runtime.workers import WorkerModel, by_chunk, in_chunks
from allmrec.steps.sequences import good_interactions
from allmrec.tables.schemas import TABLES

SCORED = "user_id string, target string, candidates array<string>, model string, ranks array<int>"


def choose_evaluation_bundle(context: Context, run_date: date | None) -> dict:
    """Return the manifest of the bundle to evaluate: the named one, else the newest for evaluation (at run_date, where one is given).

    Raises BundleError, naming it, for a bundle that has seen the targets: one for serving, or one trained at another cut-off.
    """
    found, named = bundle_store.manifests(context), context.config.scoring.bundle_id
    if named is not None:
        manifest = bundle_store.choose_bundle(context, date.max)
        if manifest["purpose"] != "evaluation":
            raise BundleError(
                f"bundle {named}: trained for serving, so it has seen the targets; train one with --set training.purpose=evaluation"
            )
        candidates = [manifest]
    else:
        candidates = [
            manifest
            for manifest in found
            if manifest["purpose"] == "evaluation" and manifest.get("parent_id") is None
        ]
        if not candidates:
            serving = ", ".join(sorted(manifest["bundle_id"] for manifest in found)) or "none"
            raise BundleError(
                f"no bundle for evaluation (for serving: {serving}, which have seen the targets); train with --set training.purpose=evaluation"
            )
    newest = max(candidates, key=lambda manifest: (manifest["trained_before"], manifest["created_at"]))
    if run_date is not None and newest["trained_before"] != str(run_date):
        raise BundleError(
            f"bundle {newest['bundle_id']}: trained before {newest['trained_before']}, expected {run_date}, the date to evaluate at"
        )
    return newest


def targets(context: Context, bundle: Bundle, run_date: date) -> DataFrame:
    """Return (user_id, history, target, negatives' exclusions) of a seeded sample of the users with a held-out last item.

    The history is everything but the last item, cut to `max_history`; the item before the last is in it (only stage 2 and the blend
    may have seen it).
    """
    config = bundle.config
    good, _, _ = good_interactions(context, run_date)
    log = counted(good, config.sequences)
    held_out = split(
        full_sequences(log, config.sequences), "evaluation", config.training.held_back_share, config.seed
    ).where(F.col("test").isNotNull())
    full = F.concat("train_items", F.array("held_back"))
    rows = held_out.select("user_id", F.slice(full, -F.least(F.size(full), F.lit(config.sequences.max_history)), config.sequences.max_history)
                           .alias("item_ids"), F.col("test").alias("target"))  # fmt: skip
    seen = good.groupBy("user_id").agg(F.sort_array(F.collect_set("item_id")).alias("seen"))
    rows = rows.join(seen, "user_id")
    limit = context.config.evaluation.num_users
    if limit is None:
        return rows
    return rows.orderBy(
        F.sha2(F.concat(F.lit(f"{context.config.seed}:evaluate:"), "user_id"), 256), "user_id"
    ).limit(limit)


def scored_users(context: Context, bundle: Bundle, users: DataFrame, num_users: int) -> DataFrame:
    """Return, by `SCORED`, every model's ranks of the same candidates (target first, then the seeded negatives) for every user."""
    config = context.config.model_copy(update={"prompt": bundle.config.prompt})
    model = WorkerModel.ship(context.spark.sparkContext, bundle.folder, bundle.bundle_id, config)
    progress = Progress(context, "users", num_users)
    add, evaluation, seed = progress.counter, config.evaluation, config.seed

    def score(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in by_chunk(frames):
            scorer = model.scorer(with_llm=True)
            index, ids = scorer.bundle.index, list(scorer.bundle.items["item_id"])
            frame["candidates"] = [
                [target, *(ids[idx - 1] for idx in sample_negatives(user, {index[item] for item in seen if item in index}, len(ids),
                                                                    evaluation.num_negatives, seed))]
                for user, target, seen in zip(frame["user_id"], frame["target"], frame["seen"], strict=True)
            ]  # fmt: skip
            found = model.retriever(frozenset(ids)).score(frame[["user_id", "item_ids", "candidates"]])
            for column in ("cf_scores", "text_scores", "sources"):
                frame[column] = list(found[column])
            parts = scorer.score(
                frame.drop(columns=["seen", "chunk"])
                .rename(columns={"item_ids": "history"})
                .assign(use_llm=True)
            )
            for name in MODELS:
                ranks = ranks_of_candidates(
                    model_scores(parts, name, scorer.bundle, config), list(frame["user_id"]), seed
                )
                yield frame[["user_id", "target", "candidates"]].assign(model=name, ranks=ranks)
            add.add(len(frame))

    chunks = in_chunks(users, num_users, config.scoring.chunk_users)
    with progress:
        rows = chunks.mapInPandas(score, SCORED).persist()
        rows.count()
    return rows


def run_evaluate(context: Context, run_date: date | None) -> str:
    """Write `evaluation_predictions` and `evaluation_results` for the evaluation bundle and return the report as text."""
    manifest = choose_evaluation_bundle(context, run_date)
    cut_off = date.fromisoformat(manifest["trained_before"])
    context.pin(manifest["table_versions"])
    report: list[str] = []

    def work(watch: Stopwatch) -> Outcome:
        llm = FrozenLLM.load(context.config.llm)
        bundle = load_bundle(bundle_store.fetch_bundle(context, manifest["bundle_id"]), llm)
        with watch("targets", "take every user's last item, draw the same negatives for all models"):
            users = targets(context, bundle, cut_off).persist()
            num_users = users.count()
        with watch(
            "score",
            f"let every model rank {context.config.evaluation.num_negatives + 1} candidates for {num_users:,} users",
        ):
            rows = scored_users(context, bundle, users, num_users)
        with watch("write", "store predictions and figures"):
            predictions = rows.withColumn("scenario", F.lit("leave_one_out")).select(
                *TABLES["evaluation_predictions"].schema.fieldNames()
            )
            context.tables.overwrite("evaluation_predictions", predictions)
            frame = results(
                rows.toPandas(),
                bundle.items,
                context.config.evaluation,
                seeds.derive(context.config.seed, "bootstrap"),
            )
            schema = TABLES["evaluation_results"].schema
            context.tables.overwrite(
                "evaluation_results", context.spark.createDataFrame(frame[schema.fieldNames()], schema)
            )
        report.append(table(frame))
        figures = {
            f"{row.model}_{row.metric}": row.value for row in frame[frame["scenario"] == "all"].itertuples()
        }
        return Outcome(counts={"users_in": num_users}, figures=figures, bundle_id=bundle.bundle_id)

    record(context, "evaluate", cut_off, None, work, bundle=manifest["bundle_id"])
    return report[0]

"""Held-out last items → the same scoring → evaluation_predictions, evaluation_results and a report.

In `evaluation_predictions` the column `scenario` names the protocol, `leave_one_out`; in `evaluation_results`
it names the users that a figure is about: `all`, or those whose target is a `warm`, `middle` or `cold` item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import pandas as pd
from pyspark import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec import seeds
from allmrec.bundle import Bundle, Manifest, load_bundle
from allmrec.config import Config
from allmrec.data.interactions import counted
from allmrec.data.snapshot import held_out_users, snapshot_uri
from allmrec.data.splits import split
from allmrec.data.user_sequences import full_sequences
from allmrec.evaluation.leave_one_out import lists_with_target, ranks_of_candidates
from allmrec.evaluation.report import results, table
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.rankers import rankers
from allmrec.runtime import bundle_store
from allmrec.runtime.chunks import by_chunk, in_chunks
from allmrec.runtime.context import Context
from allmrec.runtime.decides import step_fingerprint
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.progress import counting
from allmrec.runtime.runs import StepRun, recorded
from allmrec.runtime.workers import WorkerModel
from allmrec.tables import filesystem
from allmrec.tables.schemas import TABLES

RANKED = "user_id string, target string, candidates array<string>, model string, ranks array<int>"
"""What workers return: `evaluation_predictions` without its scenario."""


def run_evaluate(context: Context, run_date: date | None) -> str:
    """Write `evaluation_predictions` and `evaluation_results` and return the report as text.

    The rows of other bundles stay. Raises BundleError where every bundle has seen the targets, or, where
    `run_date` is given, the bundle was not trained before that date.
    """
    context = context.with_resolved_dtype()
    manifest = bundle_store.choose_evaluation_bundle(context, run_date)
    cut_off = date.fromisoformat(manifest.trained_before)
    mark = step_fingerprint("evaluate", context.config, cut_off, bundle=manifest.bundle_id)
    with recorded(context, "evaluate", cut_off, mark, manifest.table_versions) as run:
        llm = FrozenLLM.load(context.config.llm, run.report)
        bundle = load_bundle(bundle_store.fetch_bundle(context, manifest.bundle_id), llm)
        with run.part("targets", "take every user's last item, draw the same negatives for all models"):
            users = run.keep(sampled_users(context, manifest, bundle.config, run))
            num_users = users.count()
        num_candidates = context.config.evaluation.num_negatives + 1
        with run.part("score", f"let every model rank {num_candidates} candidates for {num_users:,} users"):
            ranked = ranked_users(context, run, bundle, users, num_users)
        with run.part("write", "store predictions and figures"):
            figures = write_tables(context, ranked, bundle)
        run.bundle_id = bundle.bundle_id
        run.counts = {"users_in": num_users}
        of_all_users = figures[figures["scenario"] == "all"]
        run.figures = {f"{row.model}_{row.metric}": row.value for row in of_all_users.itertuples()}
    return table(figures)


def sampled_users(context: Context, manifest: Manifest, trained: Config, run: StepRun) -> DataFrame:
    """Return (user_id, history, target, seen) of a seeded sample of the users with a held-out last item.

    They are read from the snapshot that the bundle was trained on. Where it holds none, as version 0.1.0 left
    it, they are made from the tables at the versions it was trained on; raises TableError where those were
    vacuumed. `trained` is the bundle's configuration.
    """
    uri = f"{snapshot_uri(context.tables.root, manifest.fingerprint)}/targets"
    if filesystem.exists(context.spark, uri):
        users = context.spark.read.parquet(uri)
    else:
        inputs = Inputs(context, manifest.table_versions)
        cut_off = date.fromisoformat(manifest.trained_before)
        log = counted(inputs.good_interactions(cut_off, run.keep).interactions, trained.sequences)
        sequences = full_sequences(log, trained.sequences)
        parts = split(sequences, "evaluation", trained.training.held_back_share, trained.seed)
        users = held_out_users(parts, inputs.seen(cut_off), trained.sequences.max_history)
    config = context.config
    if config.evaluation.num_users is None:
        return users
    drawn = F.sha2(F.concat(F.lit(f"{config.seed}:evaluate:"), "user_id"), 256)
    return users.orderBy(drawn, "user_id").limit(config.evaluation.num_users)


def ranked_users(
    context: Context, run: StepRun, bundle: Bundle, users: DataFrame, num_users: int
) -> DataFrame:
    """Return the rows of `RANKED`: every ranker on the same candidates; kept until the step ends."""
    model = WorkerModel.ship(context.spark.sparkContext, bundle.folder, bundle.bundle_id, context.config)
    chunks = in_chunks(users, num_users, context.config.scoring.chunk_users)
    with counting(context.spark, run.report, "score", num_users, "users") as num_done:
        rows = run.keep(chunks.mapInPandas(ranking(model, num_done), RANKED))
        rows.count()
    return rows


def ranking(
    model: WorkerModel, num_done: Accumulator[int]
) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for `mapInPandas`: chunks of `held_out_users` in, rows of `RANKED` out."""
    config = model.config

    def rank(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for users in by_chunk(batches):
            scorer = model.scorer(with_llm=True)
            retriever = model.retriever(frozenset(scorer.bundle.items["item_id"]))
            lists = lists_with_target(
                users["user_id"].tolist(),
                users["history"].tolist(),
                users["target"].tolist(),
                users["seen"].tolist(),
                retriever,
                config.evaluation.num_negatives,
                config.seed,
            )
            lists = scorer.score(lists.asking_llm(True))
            rows = users[["user_id", "target"]].assign(candidates=lists.listed(lists.ids))
            for name, ranker in rankers(scorer.bundle.blends, config.scoring).items():
                ranks = ranks_of_candidates(ranker.scores(lists), lists, config.seed)
                yield rows.assign(model=name, ranks=ranks)
            num_done.add(len(users))

    return rank


def write_tables(context: Context, ranked: DataFrame, bundle: Bundle) -> pd.DataFrame:
    """Write the bundle's rows of both tables, one commit each, and return the figures.

    They are the rows of `evaluation_results` as a frame.
    """
    bundle_id, replace_where = bundle.bundle_id, context.tables.replace_where
    predictions = ranked.withColumns({"scenario": F.lit("leave_one_out"), "bundle_id": F.lit(bundle_id)})
    columns = TABLES["evaluation_predictions"].schema.fieldNames()
    replace_where("evaluation_predictions", predictions.select(*columns), "bundle_id", bundle_id)
    settings, seed = context.config.evaluation, seeds.derive(context.config.seed, "bootstrap")
    figures = results(ranked.toPandas(), bundle.items, settings, seed).assign(bundle_id=bundle_id)
    schema = TABLES["evaluation_results"].schema
    rows = context.spark.createDataFrame(figures[schema.fieldNames()], schema)
    replace_where("evaluation_results", rows, "bundle_id", bundle_id)
    return figures

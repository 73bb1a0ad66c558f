"""Held-out last items → scores → evaluation_predictions, evaluation_results, report.

In both tables `protocol` is the set of items that a held-out item was ranked among
(`allmrec.evaluation.protocols`). In `evaluation_results` the column `scenario` is the group of users of a
figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark import Accumulator, Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec import metrics, seeds
from allmrec.bundle import Bundle
from allmrec.errors import InputError
from allmrec.evaluation.comparison import Comparison
from allmrec.evaluation.condition import LEAVE_ONE_OUT, condition_of, scenario_of
from allmrec.evaluation.content import Content, content_of
from allmrec.evaluation.list_figures import SCENARIO as OF_LISTS
from allmrec.evaluation.list_figures import cost_figures, list_figures
from allmrec.evaluation.markdown import markdown
from allmrec.evaluation.page import page
from allmrec.evaluation.protocols import ranked
from allmrec.evaluation.report import comparisons, results
from allmrec.evaluation.scenarios import SCENARIOS
from allmrec.evaluation.words import Lists
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night, StepRun
from allmrec.runtime.workers import WorkerModel, with_llm
from allmrec.spark.chunks import by_chunk, in_chunks
from allmrec.spark.progress import counting
from allmrec.steps.evaluated import (
    Evaluated,
    available_in,
    bundle_in_use,
    catalogue_of,
    evaluated,
    evaluated_users,
)
from allmrec.tables.schemas import TABLES

RANKED = (
    "protocol string, user_id string, target string, candidates array<string>, model string, "
    "ranks array<int>, target_rank int, num_ranked int, scores array<double>, probabilities array<double>, "
    "is_sampled boolean"
)
"""Columns of workers' rows: `evaluation_predictions` without bundle and scenario, with `is_sampled`."""
RANKS = ("protocol", "model", "user_id", "target", "target_rank")
"""Columns for the figures of ranks."""
NUM_EXAMPLES = 8
"""Number of users whose lists are shown."""


@dataclass(frozen=True)
class Measured:
    """The figures of an evaluation, and the rows behind them."""

    figures: pd.DataFrame
    """Rows of `evaluation_results`."""
    compared: list[tuple[str, str, str, str, Comparison]]
    """The result of `allmrec.evaluation.report.comparisons`."""
    ranks: pd.DataFrame
    """RANKS of all users."""
    lists: pd.DataFrame
    """Rows of RANKED of the users with sampled items."""


@dataclass(frozen=True)
class Costs:
    """Counters of the work on retrieved lists, by part.

    A repeated task counts twice, in seconds and users.
    """

    seconds: dict[str, Accumulator[float]]
    num_users: dict[str, Accumulator[int]]

    @classmethod
    def of(cls, spark: SparkSession) -> Costs:
        """Return counters of the session's workers."""
        context = spark.sparkContext
        parts = ("lists", "llm")
        return cls(
            {part: context.accumulator(0.0) for part in parts},
            {part: context.accumulator(0) for part in parts},
        )

    def add(self, part: str, seconds: float, num_users: int) -> None:
        """Count a piece of work, in a worker."""
        self.seconds[part].add(seconds)
        self.num_users[part].add(num_users)

    def values(self) -> tuple[dict[str, float], dict[str, int]]:
        """Return seconds and numbers of users, by part."""
        return (
            {part: counter.value for part, counter in self.seconds.items()},
            {part: counter.value for part, counter in self.num_users.items()},
        )


def run_evaluate(context: Context, run_date: date | None, html: Path | None = None) -> str:
    """Write `evaluation_predictions` and `evaluation_results` and return the report.

    The report is Markdown. With `html` the report is also written as a page to that file.

    The rows of other bundles and conditions stay. Raises BundleError where every bundle has seen the targets,
    or, with `run_date`, the bundle was not trained before that date; InputError where no user has a target.
    """
    context = context.with_resolved_dtype()
    subject = evaluated(context, run_date)
    bundle_id = subject.manifest.bundle_id
    cut_off = subject.cut_off
    step = Night(context, cut_off).step("evaluate", bundle=bundle_id)
    with step.recorded(subject.inputs.versions, subject.inputs.table_ids) as run:
        with run.part("bundle", "load the evaluated bundle, and the LLM"):
            catalogue = catalogue_of(subject)
            bundle = bundle_in_use(subject, catalogue, run)
            available = available_in(bundle, catalogue)
        with run.part("targets", "take every user's last item"):
            users = run.keep(evaluated_users(subject, bundle.config, run))
            num_users = users.count()
        if not num_users:
            raise InputError(
                f"evaluate: no user has two items before {cut_off}, expected a history and the next item; "
                "import more interactions, or train at a later --run-date"
            )
        protocols = ", ".join(context.config.evaluation.protocols)
        with run.part("score", f"let every ranker order the lists of {num_users:,} users: {protocols}"):
            rows, costs = ranked_users(context, run, bundle, available, users, num_users)
        with run.part("write", "store predictions and figures"):
            found = measured(context, rows, costs, bundle, bundle_id)
            write_tables(context, rows, bundle_id, found.figures)
            content = report_of(context, subject, bundle, found, users, num_users, available)
            if html is not None:
                html.write_text(page(content), encoding="utf-8")
        run.bundle_id = bundle_id
        run.counts = {"users_in": num_users}
        of_all = found.figures[found.figures["scenario"] == scenario_of(condition_of(context.config), "all")]
        run.figures = {f"{row.protocol}_{row.model}_{row.metric}": row.value for row in of_all.itertuples()}
    return markdown(content)


def report_of(
    context: Context,
    subject: Evaluated,
    bundle: Bundle,
    found: Measured,
    users: DataFrame,
    num_users: int,
    available: np.ndarray,
) -> Content:
    """Return the content of the report; `users` are those of `evaluated_users`."""
    manifest = subject.manifest
    shown = users.where(F.col("place") <= NUM_EXAMPLES).select("user_id", "history").collect()
    return content_of(
        f"Bundle {manifest.bundle_id}, trained before {manifest.trained_before}",
        found.figures,
        found.compared,
        found.ranks,
        found.lists,
        bundle.items,
        {row["user_id"]: row["history"] for row in shown},
        lists_of(context, users, num_users, bundle, available),
        None if bundle.decision is None else str(bundle.decision),
    )


def lists_of(
    context: Context, users: DataFrame, num_users: int, bundle: Bundle, available: np.ndarray
) -> Lists:
    """Return facts about the lists of `evaluated_users`; `available` is [I+1] bool."""
    config = context.config
    items = bundle.items.loc[available[1:], ["item_id"]]
    ids = context.spark.createDataFrame(items, "item_id string")
    is_seen = F.array_contains("seen_before", F.col("target")) & F.lit(config.candidates.exclude_seen)
    num_seen_before = users.where(is_seen).count()
    others = users.where(~is_seen).select(F.col("target").alias("item_id"))
    return Lists(
        config.candidates.num_candidates,
        config.scoring.llm_candidates,
        config.evaluation.exclude_seen,
        num_users,
        num_seen_before,
        others.join(ids, "item_id", how="left_anti").count(),
    )


def ranked_users(
    context: Context,
    run: StepRun,
    bundle: Bundle,
    available: np.ndarray,
    users: DataFrame,
    num_users: int,
) -> tuple[DataFrame, Costs]:
    """Return the rows of `RANKED` and the costs of retrieved lists.

    Every ranker ranks the same candidates. `available` is the result of `available_in`. The rows are cached
    until the step ends.
    """
    costs = Costs.of(context.spark)
    model = WorkerModel.ship(context.spark.sparkContext, bundle.folder, bundle.bundle_id, context.config)
    chunks = in_chunks(users, num_users, context.config.scoring.chunk_users)
    with counting(context.spark, run.report, "score", num_users, "users") as num_done:
        rank = ranking(model, context.spark.sparkContext.broadcast(available), num_done, costs)
        rows = run.keep(with_llm(chunks, rank, RANKED, context.config.llm))
        rows.count()
    return rows, costs


def ranking(
    model: WorkerModel, available: Broadcast[np.ndarray], num_done: Accumulator[int], costs: Costs
) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for `mapInPandas` that makes rows of `RANKED`.

    Its input are chunks of `evaluated_users`.
    """

    def rank(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for users in by_chunk(batches):
            scorer = model.scorer(with_llm=True)
            retriever = model.retriever(available.value)
            yield from ranked(users, retriever, scorer, model.config, costs.add)
            num_done.add(len(users))

    return rank


def measured(context: Context, rows: DataFrame, costs: Costs, bundle: Bundle, bundle_id: str) -> Measured:
    """Return the figures of the rankers, for the bundle `bundle_id`."""
    settings = context.config.evaluation
    seed = seeds.derive(context.config.seed, "bootstrap")
    ranks: pd.DataFrame = rows.select(*RANKS).toPandas()
    lists = rows.where("is_sampled").toPandas()
    vectors = bundle.text_embeddings[1:].cpu().numpy()
    of_lists = list_figures(lists, bundle.items, vectors, metrics.BOOTSTRAP_SAMPLES, seed)
    parts = [results(ranks, bundle.items, settings, seed), of_lists]
    if "retrieved" in settings.protocols:
        parts.append(cost_figures(*costs.values(), ranks["model"].unique()))
    figures = pd.concat(parts, ignore_index=True)
    condition = condition_of(context.config)
    scenarios = [scenario_of(condition, group) for group in figures["scenario"]]
    figures = figures.assign(scenario=scenarios, bundle_id=bundle_id)
    return Measured(figures, comparisons(ranks, seed), ranks, lists)


def write_tables(context: Context, rows: DataFrame, bundle_id: str, figures: pd.DataFrame) -> None:
    """Replace the bundle's rows of this condition in both tables."""
    condition = condition_of(context.config)
    scenario = condition or LEAVE_ONE_OUT
    named = rows.withColumns({"scenario": F.lit(scenario), "bundle_id": F.lit(bundle_id)})
    columns = TABLES["evaluation_predictions"].schema.fieldNames()
    own = f"bundle_id = '{bundle_id}' AND scenario = '{scenario}'"
    context.tables.replace_where("evaluation_predictions", named.select(*columns), own)
    scenarios = ", ".join(f"'{scenario_of(condition, group)}'" for group in (*SCENARIOS, OF_LISTS))
    own = f"bundle_id = '{bundle_id}' AND scenario IN ({scenarios})"
    schema = TABLES["evaluation_results"].schema
    of_results = context.spark.createDataFrame(figures[schema.fieldNames()], schema)
    context.tables.replace_where("evaluation_results", of_results, own)

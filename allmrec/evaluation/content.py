"""Content of an evaluation as plain values, for Markdown and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from allmrec.evaluation import words
from allmrec.evaluation.comparison import Comparison, in_words
from allmrec.evaluation.condition import condition_and_group
from allmrec.evaluation.examples import Example, examples
from allmrec.evaluation.list_figures import Bin, calibration
from allmrec.evaluation.plots import ByPopularity, Cost, by_popularity, costs
from allmrec.evaluation.report import COST, HEADLINE

SHOWN = {
    "retrieved": ("Hit@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10"),
    "catalogue": ("HR@10", "Recall@20", "HR@100", "NDCG@10", "NDCG@100"),
    "uniform": ("Hit@1", "HR@5", "HR@10", "NDCG@10", "MRR"),
    "popular": ("Hit@1", "HR@5", "HR@10", "NDCG@10", "MRR"),
}
"""Metrics of a report, by protocol; `evaluation_results` has all metrics."""
SHOWN_OF_LISTS = {
    "retrieved": ("coverage@10", "novelty@10", "popularity@10", "diversity@10", "calibration error", COST),
    "catalogue": ("coverage@10", "novelty@10", "popularity@10", "diversity@10", "AUC per user"),
    "uniform": ("AUC", "AUC per user"),
    "popular": ("AUC", "AUC per user"),
}
"""The same of whole lists (`allmrec.evaluation.list_figures`)."""


class Figure(NamedTuple):
    """A figure with its 95 % interval; NaN if it is missing."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The figure as text."""
        return "–" if np.isnan(self.value) else f"{self.value:.3f}"

    @property
    def interval(self) -> str:
        """The interval as text; empty without one."""
        return "" if np.isnan(self.low) or np.isnan(self.value) else f"[{self.low:.3f}, {self.high:.3f}]"


MISSING = Figure(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Group:
    """The figures of a group of users under one protocol."""

    protocol: str
    """In words."""
    users: str
    """The group and its condition, in words."""
    num_users: int
    remarks: list[str]
    metrics: tuple[str, ...]
    """Names of M metrics."""
    figures: dict[str, list[Figure]]
    """Ranker → its figures, [M]."""
    headline: dict[str, Figure]
    """Ranker → its headline metric; empty for whole lists."""


class Compared(NamedTuple):
    """The served order against another ranker."""

    place: str
    """The ranked lists, in words."""
    ranker: str
    words: str
    verdict: str


@dataclass(frozen=True)
class Content:
    """The content of a report."""

    title: str
    groups: list[Group]
    comparisons: list[Compared]
    decision: str | None
    """The decision of the training; None if the training made none."""
    costs: list[Cost]
    by_popularity: list[ByPopularity]
    calibration: list[Bin]
    examples: list[Example]


def content_of(
    title: str,
    figures: pd.DataFrame,
    compared: Sequence[tuple[str, str, str, str, Comparison]],
    ranks: pd.DataFrame,
    lists: pd.DataFrame,
    items: pd.DataFrame,
    histories: Mapping[str, Sequence[str]],
    about_lists: words.Lists,
    decision: str | None = None,
) -> Content:
    """Return the content.

    Parameters
    ----------
    title: the subject of the evaluation.
    figures: rows of `evaluation_results`.
    compared: the result of `report.comparisons`.
    ranks: protocol, model, user_id, target and target_rank of all users.
    lists: rows of `evaluation_predictions` of the sampled users.
    items: item_id, title and num_interactions.
    histories: item ids, oldest first, of the users who are shown as examples.
    about_lists: facts for the remarks.
    decision: the decision of the training.
    """
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    counts = dict(zip(items["item_id"], items["num_interactions"], strict=True))
    return Content(
        title=title,
        groups=[
            _group(str(protocol), str(scenario), block, about_lists)
            for (protocol, scenario), block in figures.groupby(["protocol", "scenario"], sort=False)
        ],
        comparisons=[
            Compared(words.place_of(protocol, scenario), ranker, in_words(metric, one), one.verdict)
            for protocol, scenario, metric, ranker, one in compared
        ],
        decision=decision,
        costs=costs(figures),
        by_popularity=by_popularity(ranks, counts),
        calibration=calibration(lists),
        examples=examples(lists, titles, histories),
    )


def _group(protocol: str, scenario: str, block: pd.DataFrame, about_lists: words.Lists) -> Group:
    """Return the content of the rows of one protocol and one scenario."""
    _, group = condition_and_group(scenario)
    shown = (SHOWN_OF_LISTS if group == "lists" else SHOWN)[protocol]
    num_users = int(block["n"].max())
    remarks = words.remarks(protocol, group, about_lists) if num_users else [words.NOBODY]
    if group != "found":
        remarks += [
            f"{words.RECALL}: {recall.text} {recall.interval}".rstrip()
            for recall in _by_ranker(block, "recall").values()
        ]
    rankers = block.loc[block["metric"].isin(shown), "model"].unique()
    by_metric = [_by_ranker(block, name) for name in shown]
    return Group(
        protocol=words.TITLES[protocol],
        users=words.users_in_words(scenario),
        num_users=num_users,
        remarks=remarks,
        metrics=shown,
        figures={ranker: [figures.get(ranker, MISSING) for figures in by_metric] for ranker in rankers},
        headline=_by_ranker(block, HEADLINE),
    )


def _by_ranker(block: pd.DataFrame, metric: str) -> dict[str, Figure]:
    """Return a metric's figures by ranker, in the order of the rows."""
    rows = block[block["metric"] == metric]
    figures = rows[["value", "low", "high"]].to_numpy(dtype=np.float64).tolist()
    return {ranker: Figure(*figure) for ranker, figure in zip(rows["model"], figures, strict=True)}

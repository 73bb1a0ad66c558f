"""Figures of whole lists: their first ten items, and their probabilities.

All rankers are measured on the users with sampled negatives, all of whom the LLM read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.evaluation import list_metrics
from allmrec.evaluation.report import COLUMNS, COST, NUM_BINS, by_protocol, target_ranks_of
from allmrec.ranking.rankers import entries

FIRST = 10
"""Number of first items of a list that count."""
SCENARIO = "lists"
"""Scenario of these figures in `evaluation_results`."""


def list_figures(
    lists: pd.DataFrame, items: pd.DataFrame, vectors_IS: np.ndarray, num_samples: int, seed: int
) -> pd.DataFrame:
    """Return rows of COLUMNS: the figures of whole lists.

    They are AUC, AUC per user, coverage, novelty, popularity, diversity and calibration error. `lists` has
    the columns of `protocols.COLUMNS`; `items` has item_id and num_interactions, in the order of `vectors_IS`
    [I, S], their text embeddings. A figure that is no mean over users has no interval.
    """
    column_of_item = {item: column for column, item in enumerate(items["item_id"])}
    counts_I = items["num_interactions"].to_numpy()
    rows = []
    for protocol, by_model in by_protocol(lists):
        for model, own in by_model.items():
            per_user = {"AUC per user": list_metrics.auc_per_user(target_ranks_of(own), own["num_ranked"])}
            single = {}
            if protocol in ("retrieved", "catalogue"):
                top_UK = _first_items(own, column_of_item)
                per_user["novelty@10"] = list_metrics.novelty(top_UK, counts_I)
                per_user["popularity@10"] = list_metrics.popularity(top_UK, counts_I)
                per_user["diversity@10"] = list_metrics.diversity(top_UK, vectors_IS)
                single["coverage@10"] = list_metrics.coverage(top_UK, len(items))
            else:
                single["AUC"] = list_metrics.auc(np.concatenate(own["scores"].to_list()), _labels(own))
            if protocol == "retrieved" and own["probabilities"].notna().any():
                single["calibration error"] = list_metrics.calibration_error(*stated_and_true(own))
            rows += [
                (protocol, SCENARIO, model, *row)
                for row in _rows(per_user, single, len(own), num_samples, seed)
            ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})


def _rows(
    per_user: dict[str, np.ndarray], single: dict[str, float], num_users: int, num_samples: int, seed: int
) -> Iterator[tuple[str, float, float, float, int]]:
    """Yield (metric, value, low, high, n), without users that have no value."""
    for name, values_U in per_user.items():
        known = values_U[~np.isnan(values_U)]
        (low,), (high,) = metrics.bootstrap_intervals(known[:, None], num_samples, seed)
        yield name, metrics.mean(known), float(low), float(high), len(known)
    for name, value in single.items():
        yield name, value, float("nan"), float("nan"), num_users


def _first_items(own: pd.DataFrame, column_of_item: dict[str, int]) -> np.ndarray:
    """Return every list's first items, [U, FIRST] int64: columns, −1 for none."""
    top_UK = np.full((len(own), FIRST), -1, dtype=np.int64)
    for user, (ids, ranks) in enumerate(zip(own["candidates"], own["ranks"], strict=True)):
        for item, rank in zip(ids, ranks, strict=True):
            if rank <= FIRST:
                top_UK[user, rank - 1] = column_of_item[item]
    return top_UK


def _labels(own: pd.DataFrame) -> np.ndarray:
    """Return whether a candidate is the target, [sum of candidates] bool."""
    lists = zip(own["candidates"], own["target"], strict=True)
    return np.concatenate([np.array([item == target for item in ids], dtype=bool) for ids, target in lists])


def stated_and_true(own: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return (probabilities [N] float64, is each the target [N] bool)."""
    stated = np.concatenate([np.asarray(values, dtype=np.float64) for values in own["probabilities"]])
    known = ~np.isnan(stated)
    return stated[known], _labels(own)[known]


class Bin(NamedTuple):
    """Candidates of about equal probability by a ranker."""

    ranker: str
    stated: float
    """Mean probability."""
    came_true: float
    """Share of the candidates that were the next item."""
    num_candidates: int


def calibration(lists: pd.DataFrame) -> list[Bin]:
    """Return probabilities and outcomes in bins of equally many candidates.

    The rankers are the plotted ones on retrieved lists. Empty if no list has probabilities.
    """
    own = lists[(lists["protocol"] == "retrieved") & lists["probabilities"].notna()]
    by_ranker = {str(ranker): rows for ranker, rows in own.groupby("model")}
    return [
        Bin(ranker, *one)
        for ranker, entry in entries().items()
        if entry.is_plotted and ranker in by_ranker
        for one in list_metrics.calibration_bins(*stated_and_true(by_ranker[ranker]), NUM_BINS)
    ]


def cost_figures(
    seconds: Mapping[str, float], num_users: Mapping[str, int], models: Iterable[str]
) -> pd.DataFrame:
    """Return rows of COLUMNS: each ranker's seconds for 1,000 users' lists.

    They are seconds of one worker. `seconds` and `num_users` are by part: `lists` (retrieval) and `llm` (all
    of scoring, of the users of the LLM). Without users a figure is NaN.
    """
    per_user = {part: seconds[part] / num if num else float("nan") for part, num in num_users.items()}
    rows = []
    table = entries()
    for model in models:
        parts = ("lists", "llm") if model in table and table[model].asks_llm else ("lists",)
        value = 1000 * sum(per_user[part] for part in parts)
        n = num_users[parts[-1]]
        rows.append(("retrieved", SCENARIO, model, COST, value, float("nan"), float("nan"), n))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})

"""Figures of every ranker, with bootstrap intervals and numbers of users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.config import EvaluationConfig
from allmrec.evaluation.comparison import Comparison, paired
from allmrec.evaluation.protocols import PROTOCOLS
from allmrec.evaluation.scenarios import SCENARIOS, scenario_rows, warm_cold
from allmrec.ranking.rankers import entries

COST = "s per 1,000 users"
"""Metric: seconds of one worker for the lists of 1,000 users, retrieval included."""
NUM_BINS = 10
"""Number of bins of popularity and of probability."""
COLUMNS = ["protocol", "scenario", "model", "metric", "value", "low", "high", "n"]
HEADLINE = "NDCG@10"
"""The metric of comparisons."""


def results(ranks: pd.DataFrame, items: pd.DataFrame, settings: EvaluationConfig, seed: int) -> pd.DataFrame:
    """Return one row per protocol, scenario, model and metric.

    A row has value, low, high (95 % interval) and n (users). `ranks` has protocol, model, user_id, target and
    target_rank (null: not among the candidates), the same users for every model of a protocol; `items` has
    item_id and num_interactions (in training). The same resamples serve all models. Without users, value, low
    and high are NaN.
    """
    classes = warm_cold(items["num_interactions"].to_numpy(), settings.tail_share)
    class_of_item = dict(zip(items["item_id"], classes, strict=True))
    rows = []
    for protocol, by_model in by_protocol(ranks):
        targets = next(iter(by_model.values()))["target"]
        target_classes = targets.map(class_of_item).fillna("cold").to_numpy(dtype=object)
        ranks_UM = np.stack([target_ranks_of(of_model) for of_model in by_model.values()], axis=1)
        for scenario in SCENARIOS:
            if scenario == "found" and protocol != "retrieved":
                continue
            users = scenario_rows(target_classes, ranks_UM[:, 0], scenario)
            ranks_uM = ranks_UM[users]
            figures = list(_figures(ranks_uM, list(by_model), metrics.BOOTSTRAP_SAMPLES, seed))
            if protocol == "retrieved":
                figures.append(_recall(ranks_uM[:, 0], metrics.BOOTSTRAP_SAMPLES, seed))
            rows += [(protocol, scenario, *row) for row in figures]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})


def by_protocol(ranks: pd.DataFrame) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """Yield every protocol with the rows of each model, by user.

    For rankers that cannot score a whole catalogue, it has their order of the retrieved list.
    """
    there = set(ranks["protocol"])
    for protocol in PROTOCOLS:
        if protocol not in there:
            continue
        of_protocol = ranks[ranks["protocol"] == protocol]
        if protocol == "catalogue":
            rerankers = [name for name, entry in entries().items() if not entry.scores_catalogue]
            reranked = (ranks["protocol"] == "retrieved") & ranks["model"].isin(rerankers)
            of_protocol = pd.concat([of_protocol, ranks[reranked]])
        yield (
            protocol,
            {
                name: of_protocol[of_protocol["model"] == name].sort_values("user_id", ignore_index=True)
                for name in _in_order(set(of_protocol["model"]))
            },
        )


def _in_order(models: set[str]) -> list[str]:
    """Return rankers in the order of the table. Unknown ones of other versions come last."""
    known = entries()
    return [name for name in known if name in models] + sorted(models - known.keys())


def target_ranks_of(of_model: pd.DataFrame, column: str = "target_rank") -> np.ndarray:
    """Return the target's ranks, [N] float64, infinity for no candidate."""
    return of_model[column].astype("Float64").fillna(np.inf).to_numpy(dtype=np.float64)


def _figures(
    ranks_UM: np.ndarray, models: list[str], num_samples: int, seed: int
) -> Iterator[tuple[str, str, float, float, float, int]]:
    """Yield (model, metric, value, low, high, n) of ranks [U, M]."""
    columns = [(model, name) for model in models for name in metrics.PER_USER]
    values_UC = np.stack(
        [per_user(ranks_U) for ranks_U in ranks_UM.T for per_user in metrics.PER_USER.values()], axis=1
    )
    low_C, high_C = metrics.bootstrap_intervals(values_UC, num_samples, seed)
    for (model, name), values_U, low, high in zip(columns, values_UC.T, low_C, high_C, strict=True):
        yield model, name, metrics.mean(values_U), float(low), float(high), len(values_U)


def _recall(ranks_U: np.ndarray, num_samples: int, seed: int) -> tuple[str, str, float, float, float, int]:
    """Return the share of users with a retrieved target, as figures."""
    found_U = np.isfinite(ranks_U).astype(np.float64)
    (low,), (high,) = metrics.bootstrap_intervals(found_U[:, None], num_samples, seed)
    return "retrieval", "recall", metrics.mean(found_U), float(low), float(high), len(found_U)


def comparisons(ranks: pd.DataFrame, seed: int) -> list[tuple[str, str, str, str, Comparison]]:
    """Return (protocol, scenario, metric, ranker, comparison) of the served order.

    The served order is compared with every other ranker. Under the protocol `retrieved` the users are all,
    and those whose target is in the list.
    """
    found = []
    for protocol, by_model in by_protocol(ranks):
        if "served" not in by_model:
            continue
        served_N = target_ranks_of(by_model["served"])
        for scenario in ("all", "found") if protocol == "retrieved" else ("all",):
            users = np.isfinite(served_N) if scenario == "found" else np.ones(len(served_N), dtype=bool)
            for name, of_model in by_model.items():
                if name == "served":
                    continue
                per_user = metrics.PER_USER[HEADLINE]
                first_N = per_user(target_ranks_of(of_model)[users])
                second_N = per_user(served_N[users])
                one = paired(first_N, second_N, metrics.BOOTSTRAP_SAMPLES, seed)
                found.append((protocol, scenario, HEADLINE, name, one))
    return found

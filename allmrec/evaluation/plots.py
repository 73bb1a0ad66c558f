"""Values of the plots: quality by popularity and against cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.evaluation.condition import condition_and_group
from allmrec.evaluation.report import COST, HEADLINE, NUM_BINS, by_protocol, target_ranks_of
from allmrec.evaluation.words import TITLES
from allmrec.ranking.rankers import entries


class ByPopularity(NamedTuple):
    """The headline metric in P bins of equally many users."""

    protocol: str
    """In words."""
    popularity: list[float]
    """Mean interactions in training of the users' next items, [P], ascending."""
    lines: dict[str, list[float]]
    """Ranker → the headline metric, [P]."""


class Cost(NamedTuple):
    """A ranker on retrieved lists."""

    ranker: str
    seconds: float
    """Per 1,000 users; NaN without users."""
    quality: float
    """Headline metric of all users."""


def by_popularity(ranks: pd.DataFrame, counts: Mapping[str, int]) -> list[ByPopularity]:
    """Return the plotted rankers' headline metric by popularity, for each protocol.

    Users are in the order of their target's interactions in training, which `counts` has by item; `ranks` are
    those of `results`.
    """
    found = []
    for protocol, by_model in by_protocol(ranks):
        targets = next(iter(by_model.values()))["target"]
        popularity_U = targets.map(counts).fillna(0).to_numpy(dtype=float)
        order = np.argsort(popularity_U, kind="stable")
        bins = [part for part in np.array_split(order, NUM_BINS) if len(part)]
        if not bins:
            continue
        popularity = [float(popularity_U[part].mean()) for part in bins]
        lines = {}
        for ranker, entry in entries().items():
            if entry.is_plotted and ranker in by_model:
                values_U = metrics.PER_USER[HEADLINE](target_ranks_of(by_model[ranker]))
                lines[ranker] = [float(values_U[part].mean()) for part in bins]
        found.append(ByPopularity(TITLES[protocol], popularity, lines))
    return found


def costs(figures: pd.DataFrame) -> list[Cost]:
    """Return the costs of retrieved lists; `figures` are rows of `evaluation_results`."""
    rows = figures[figures["protocol"] == "retrieved"]
    groups = rows["scenario"].map(lambda scenario: condition_and_group(scenario)[1])
    seconds = rows[(groups == "lists") & (rows["metric"] == COST)].set_index("model")["value"]
    quality = rows[(groups == "all") & (rows["metric"] == HEADLINE)].set_index("model")["value"]
    return [
        Cost(ranker, float(seconds[ranker]), float(quality[ranker]))
        for ranker in quality.index
        if ranker in seconds
    ]

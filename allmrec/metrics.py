"""Ranking metrics from the 1-based rank of the one true item, and bootstrap intervals. NumPy only.

With one relevant item per user, as in leave-one-out (A-LLMRec, section 5.1), every metric is a function of
that item's rank r: Hit@k = HR@k = Recall@k = [r ≤ k], NDCG@k = [r ≤ k] / log2(1 + r) (Järvelin & Kekäläinen
2002; the ideal DCG is 1), MRR = 1 / r. Each function returns the value of every user; the figure is their
mean, NaN for no users (`mean`). An item that was not ranked at all has rank infinity and counts 0 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Values = np.ndarray


def hit(ranks: Values, k: int) -> Values:
    """[N] float: 1 where the true item is among the first k (`ranks` [N] float or int, from 1), else 0."""
    return (np.asarray(ranks) <= k).astype(np.float64)


def ndcg(ranks: Values, k: int) -> Values:
    """[N] float: 1 / log2(1 + r) where r ≤ k, else 0."""
    ranks = np.asarray(ranks, dtype=np.float64)
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + ranks), 0.0)


def mrr(ranks: Values) -> Values:
    """[N] float: reciprocal rank 1 / r."""
    return 1.0 / np.asarray(ranks, dtype=np.float64)


def mean(values: Values) -> float:
    """The mean; NaN for no values, without a warning."""
    return float(np.mean(values)) if len(values) else float("nan")


PER_USER: dict[str, Callable[[Values], Values]] = {
    "Hit@1": lambda ranks: hit(ranks, 1),
    "HR@5": lambda ranks: hit(ranks, 5),
    "HR@10": lambda ranks: hit(ranks, 10),
    "NDCG@5": lambda ranks: ndcg(ranks, 5),
    "NDCG@10": lambda ranks: ndcg(ranks, 10),
    "MRR": mrr,
}
"""The metrics that are reported everywhere: name → value per user, from ranks [N]."""


def figures(ranks: Values) -> dict[str, float]:
    """Return the mean of every metric of `PER_USER` over `ranks` [N]."""
    return {name: mean(per_user(ranks)) for name, per_user in PER_USER.items()}


def ranks_of_target(scores: Values, target_column: Values) -> Values:
    """Return the 1-based rank [N] float64 of each row's target column [N] in `scores` [N, C], highest first.

    A tie never helps: the target comes behind every candidate of the same score, so that a model which gives
    all candidates one score has Hit@1 = 0. −inf marks candidates that are out: a target scored −inf is last.
    Raises ValueError for NaN.
    """
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN, expected numbers or -inf")
    target = scores[np.arange(len(scores)), np.asarray(target_column)][:, None]
    return (scores >= target).sum(axis=1).astype(np.float64)


def bootstrap_interval(
    values: Values, num_samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return (low, high), the percentile bootstrap interval of the mean of `values` [N].

    Source: Efron & Tibshirani 1993, section 13.3.

    Users are resampled with replacement `num_samples` times by a generator seeded with `seed`; (NaN, NaN) for
    no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return float("nan"), float("nan")
    random = np.random.Generator(np.random.PCG64(seed))
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(num_samples)]
    tail = (1.0 - level) / 2
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)

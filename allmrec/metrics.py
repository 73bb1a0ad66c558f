"""Ranking metrics from the rank of the true item, and bootstrap intervals.

With one relevant item per user, as in leave-one-out (A-LLMRec, section 5.1), every metric is a function of
that item's 1-based rank r: Hit@k = HR@k = Recall@k = [r ≤ k], NDCG@k = [r ≤ k] / log2(1 + r) (Järvelin &
Kekäläinen 2002; the ideal DCG is 1), MRR = 1 / r. Each function returns the value of every user; the figure
is their mean, NaN for no users (`mean`). An item that was not ranked has rank infinity and counts 0
everywhere. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Values = np.ndarray
BOOTSTRAP_SAMPLES = 1000
"""Resamples per interval: its 25th lowest and 25th highest mean are the bounds at 95 %."""


def hit(ranks: Values, k: int) -> Values:
    """[N] float: 1 for true items among the first k, else 0.

    `ranks` are [N] float or int, from 1.
    """
    return (np.asarray(ranks) <= k).astype(np.float64)


def ndcg(ranks: Values, k: int) -> Values:
    """[N] float: 1 / log2(1 + r), or 0 beyond rank k."""
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
    "Recall@20": lambda ranks: hit(ranks, 20),
    "HR@100": lambda ranks: hit(ranks, 100),
    "NDCG@5": lambda ranks: ndcg(ranks, 5),
    "NDCG@10": lambda ranks: ndcg(ranks, 10),
    "NDCG@20": lambda ranks: ndcg(ranks, 20),
    "NDCG@100": lambda ranks: ndcg(ranks, 100),
    "MRR": mrr,
}
"""The metrics of all reports: name → value per user, from ranks [N].

HR@20 has its other name, Recall@20, which is equal with one true item.
"""


def figures(ranks: Values) -> dict[str, float]:
    """Return the mean of every metric of `PER_USER` over `ranks` [N]."""
    return {name: mean(per_user(ranks)) for name, per_user in PER_USER.items()}


def ranks_of_target(scores: Values, target_column: Values) -> Values:
    """Return the rank of each target column, [N] float64 from 1.

    `scores` are [N, C], `target_column` [N]; the highest score is first. The target is behind every candidate
    of the same score, so that a model which gives all candidates one score has Hit@1 = 0. −inf marks excluded
    candidates: a target scored −inf is last. Raises ValueError for NaN.
    """
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN, expected numbers or -inf")
    target = scores[np.arange(len(scores)), np.asarray(target_column)][:, None]
    return (scores >= target).sum(axis=1).astype(np.float64)


def bootstrap_intervals(
    values_NM: Values, num_samples: int = BOOTSTRAP_SAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[Values, Values]:
    """Return (low [M], high [M]) of bootstrapped means of [N, M].

    They are percentile intervals (Efron & Tibshirani 1993, section 13.3). Rows, the users, are resampled with
    replacement `num_samples` times by a generator seeded with `seed`, the same resamples for every column.
    NaN for no rows.
    """
    values_NM = np.asarray(values_NM, dtype=np.float64)
    num_users, num_columns = values_NM.shape
    if num_users == 0:
        return np.full(num_columns, np.nan), np.full(num_columns, np.nan)
    random = np.random.Generator(np.random.PCG64(seed))
    means_SM = np.empty((num_samples, num_columns))
    for sample in range(num_samples):
        # Numbers of draws per user are counted, because copies of the drawn rows are slower.
        times_N = np.bincount(random.integers(0, num_users, num_users), minlength=num_users)
        means_SM[sample] = times_N.astype(np.float64) @ values_NM / num_users
    tail = (1.0 - level) / 2
    low_M, high_M = np.quantile(means_SM, [tail, 1.0 - tail], axis=0)
    return low_M, high_M

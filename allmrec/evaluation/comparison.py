"""Comparison of two rankers on the same users: difference, interval, sample size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from allmrec import metrics

SMALL = 0.01
"""The small difference of `Comparison.num_users_for_small`, as a share of the first ranker's figure."""
Z_LEVEL = 1.959964
Z_POWER = 0.841621
"""Normal quantiles of a two-sided level of 5 % and a power of 80 %."""


@dataclass(frozen=True)
class Comparison:
    """The second ranker compared with the first on the same users."""

    n: int
    """Number of users."""
    first: float
    second: float
    """Means."""
    low: float
    high: float
    """95 % bootstrap interval of the difference second − first."""
    num_users_for_small: float
    """Users for whom a difference of 1 % of the first mean would be found in four of five samples.

    Infinity if the first mean is 0, NaN with fewer than two users.
    """

    @property
    def difference(self) -> float:
        """The second mean minus the first."""
        return self.second - self.first

    @property
    def verdict(self) -> str:
        """Whether the second ranker is `better`, `worse`, or cannot be told apart."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "cannot be told apart with these users"


def paired(first_N: np.ndarray, second_N: np.ndarray, num_samples: int, seed: int) -> Comparison:
    """Compare two rankers by values of the same users, [N] float.

    Users are resampled in pairs (Efron & Tibshirani 1993, section 13.3). The number of users for a small
    difference is ((1.96 + 0.84) · s / (0.01 · mean))², s the standard deviation of the differences (Cohen
    1988, section 2.3). Raises ValueError where the numbers of users differ.
    """
    first_N, second_N = (np.asarray(values, dtype=np.float64) for values in (first_N, second_N))
    if first_N.shape != second_N.shape:
        raise ValueError(f"{len(first_N)} and {len(second_N)} users, expected the same ones")
    differences_N = second_N - first_N
    (low,), (high,) = metrics.bootstrap_intervals(differences_N[:, None], num_samples, seed)
    mean = metrics.mean(first_N)
    needed = math.nan
    if len(differences_N) >= 2:
        spread = float(differences_N.std(ddof=1))
        needed = ((Z_LEVEL + Z_POWER) * spread / (SMALL * mean)) ** 2 if mean else math.inf
    return Comparison(len(first_N), mean, metrics.mean(second_N), float(low), float(high), needed)


def in_words(metric: str, one: Comparison) -> str:
    """Return a comparison as a phrase: difference, interval, n, verdict, sample size."""
    if not one.n:
        return "no users"
    return (
        f"{metric} {one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}], n = {one.n:,}: {one.verdict}"
        f"{_needed(one.num_users_for_small)}"
    )


def _needed(num_users: float) -> str:
    """Return the users for a difference of 1 %, as a phrase."""
    return f" (1 % takes some {num_users:,.0f} users)" if math.isfinite(num_users) else ""

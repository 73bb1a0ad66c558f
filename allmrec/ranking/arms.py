"""Arms of an experiment: a stable random group of every user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from allmrec import seeds


def arms_of(users: Sequence[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Return the arm of every user, [N] object.

    A user's arm depends on seed, user id and shares alone. Each arm draws an exponential time with its share
    as the rate, and the earliest wins, so that arms have their shares. If one arm grows while the others
    keep their proportions, users move into this arm only. `shares` sum to 1.
    """
    names = [name for name, share in shares.items() if share > 0]
    draws_NA = np.array(
        [[seeds.derive(seed, "arm", name, user) for name in names] for user in users], dtype=np.float64
    ).reshape(len(users), len(names))
    # From above 0, because a logarithm follows.
    uniform_NA = (draws_NA + 0.5) / 2.0**63
    times_NA = -np.log(uniform_NA) / np.array([shares[name] for name in names])
    return np.array(names, dtype=object)[times_NA.argmin(axis=1)]

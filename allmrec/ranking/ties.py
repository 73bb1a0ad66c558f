"""The one rule for equal scores: their order is drawn from (seed, user_id, item_id).

Nights, evaluations and the fit of orders use it. A draw favours no item: a ranker that gives all candidates
one score has the figures of chance. It depends on no other candidate, so a list keeps its order where other
candidates come or go.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from allmrec import seeds
from allmrec.ranking.candidate_lists import CandidateLists


def item_draws(item_ids: Iterable[str], seed: int) -> np.ndarray:
    """Return an item's share of its draws, [N] uint64."""
    return np.array([seeds.derive(seed, "ties", "item", item) for item in item_ids], dtype=np.uint64)


def draws_of_user(user_id: str, draws_N: np.ndarray, seed: int) -> np.ndarray:
    """Return the draws of one user and N items, [N] uint64: of equal scores the lowest draw comes first.

    `draws_N` is what `item_draws` returns.
    """
    mixed_N = draws_N ^ np.uint64(seeds.derive(seed, "ties", "user", user_id))
    # The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): every bit depends on every other one.
    with np.errstate(over="ignore"):
        mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))


def best_first(scores_BC: np.ndarray, lists: CandidateLists, seed: int) -> np.ndarray:
    """Return the columns of every user's candidates, [B, C] int64, highest score first.

    `scores_BC` [B, C] float64 are numbers where there is a candidate. Columns without a candidate come last.
    """
    keys_BC = np.where(lists.present, -scores_BC, np.inf)
    order_BC = np.argsort(keys_BC, axis=1, kind="stable")
    sorted_BC = np.take_along_axis(keys_BC, order_BC, axis=1)
    is_tied_BC = (sorted_BC[:, 1:] == sorted_BC[:, :-1]) & np.isfinite(sorted_BC[:, 1:])
    for row in np.flatnonzero(is_tied_BC.any(axis=1)).tolist():
        count = int(lists.counts[row])
        draws_C = draws_of_user(lists.users[row], item_draws(lists.ids[row, :count], seed), seed)
        order_BC[row, :count] = np.lexsort((draws_C, keys_BC[row, :count]))
    return order_BC


def ranks(scores_BC: np.ndarray, lists: CandidateLists, seed: int) -> np.ndarray:
    """Return the rank of every candidate, [B, C] int64 from 1, higher scores first.

    Columns without a candidate come after all candidates.
    """
    order_BC = best_first(scores_BC, lists, seed)
    ranks_BC = np.empty_like(order_BC)
    np.put_along_axis(ranks_BC, order_BC, np.arange(1, order_BC.shape[1] + 1)[None, :], axis=1)
    return ranks_BC

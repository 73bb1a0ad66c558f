"""From scores to ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allmrec.ranking import ties
from allmrec.ranking.candidate_lists import CandidateLists


def ranks_of_candidates(scores_BC: np.ndarray, lists: CandidateLists, seed: int) -> list[list[int]]:
    """Return the ranks, from 1, of scores [B, C], per user.

    Higher scores are first. Equal scores are ordered by `allmrec.ranking.ties`, alike for every ranker.
    Raises ValueError where a candidate's score is not finite.
    """
    require_finite_lists(scores_BC, lists)
    return lists.listed(ties.ranks(scores_BC, lists, seed))


def require_finite_lists(scores_BC: np.ndarray, lists: CandidateLists) -> None:
    """Raise ValueError where a candidate's score is not finite."""
    for user, scores_C, count in zip(lists.users, scores_BC, lists.counts.tolist(), strict=True):
        _require_finite(scores_C[:count], user)


def target_ranks(
    candidates: Sequence[Sequence[str]], ranks: Sequence[Sequence[int]], targets: Sequence[str]
) -> list[int | None]:
    """Return the rank of each user's target. None if it is no candidate."""
    return [
        dict(zip(ids, user_ranks, strict=True)).get(target)
        for ids, user_ranks, target in zip(candidates, ranks, targets, strict=True)
    ]


def ranks_in_catalogue(
    scores_BI: np.ndarray,
    hidden_BI: np.ndarray,
    columns_B: np.ndarray,
    users: Sequence[str],
    draws_I: np.ndarray,
    seed: int,
    num_best: int,
) -> tuple[np.ndarray, list[list[int]]]:
    """Return every user's rank of the target, and the best other items.

    | input | shape and type |
    |---|---|
    | scores_BI | [B, I] float64, higher is better |
    | hidden_BI | [B, I] bool: items outside of the ranking |
    | columns_B | [B] int64: the target's column |
    | draws_I | [I] uint64: `ties.item_draws` of the items |

    Ranks are among all items, [B] int64, from 1 (0 if the target is hidden). The best are up to `num_best`
    columns per user, best first, without the target. Equal scores are ordered by `allmrec.ranking.ties`,
    alike for every ranker. Raises ValueError where the score of an item that is not hidden is not finite.
    """
    ranks_B = np.zeros(len(scores_BI), dtype=np.int64)
    best = []
    for row, user in enumerate(users):
        shown = np.flatnonzero(~hidden_BI[row])
        _require_finite(scores_BI[row, shown], user)
        scores = np.full(scores_BI.shape[1], -np.inf)
        scores[shown] = scores_BI[row, shown]
        target = int(columns_B[row])
        draws = ties.draws_of_user(user, draws_I, seed)
        if not hidden_BI[row, target]:
            is_equal = scores == scores[target]
            num_before = int((scores > scores[target]).sum()) + int((draws[is_equal] < draws[target]).sum())
            ranks_B[row] = 1 + num_before
            scores[target] = -np.inf
        best.append(_best(scores, draws, num_best))
    return ranks_B, best


def _best(scores: np.ndarray, draws: np.ndarray, num_best: int) -> list[int]:
    """Return the columns of the `num_best` highest finite scores [I] float64."""
    size = min(num_best, int(np.isfinite(scores).sum()))
    if not size:
        return []
    lowest = np.partition(scores, len(scores) - size)[len(scores) - size]
    among = np.flatnonzero(scores >= lowest)
    return among[np.lexsort((draws[among], -scores[among]))[:size]].tolist()


def _require_finite(scores: np.ndarray, user: str) -> None:
    if not np.isfinite(scores).all():
        raise ValueError(f"user {user!r}: a score is not finite, expected numbers")

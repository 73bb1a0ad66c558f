"""From scores to ranks, the same ties for every ranker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allmrec import seeds
from allmrec.ranking.candidate_lists import CandidateLists


def ranks_of_candidates(scores_BC: np.ndarray, lists: CandidateLists, seed: int) -> list[list[int]]:
    """Return the rank of every candidate, from 1, higher scores [B, C] first, as one list per user.

    Equal scores are ordered at random by (seed, user_id), the same for every ranker: a tie favours the target
    no more than any other, wherever it stands in the list. Raises ValueError where a candidate's score is not
    finite.
    """
    ranks = []
    for user, scores_C, count in zip(lists.users, scores_BC, lists.counts.tolist(), strict=True):
        scores = np.asarray(scores_C[:count], dtype=np.float64)
        _require_finite(scores, user)
        chance = seeds.generator(seed, "ties", user).permutation(count)
        user_ranks = np.empty(count, dtype=np.int64)
        user_ranks[np.lexsort((chance, -scores))] = np.arange(1, count + 1)
        ranks.append(user_ranks.tolist())
    return ranks


def target_ranks(
    candidates: Sequence[Sequence[str]], ranks: Sequence[Sequence[int]], targets: Sequence[str]
) -> list[int | None]:
    """Return the rank of each user's target; None where it is not among the candidates."""
    return [
        dict(zip(ids, user_ranks, strict=True)).get(target)
        for ids, user_ranks, target in zip(candidates, ranks, targets, strict=True)
    ]


def ranks_in_catalogue(
    scores_BI: np.ndarray,
    hidden_BI: np.ndarray,
    columns_B: np.ndarray,
    users: Sequence[str],
    seed: int,
    num_best: int,
) -> tuple[np.ndarray, list[list[int]]]:
    """Return every user's rank of the target among all items, and the columns of the best items without it.

    | input | shape and type |
    |---|---|
    | scores_BI | [B, I] float64, higher is better |
    | hidden_BI | [B, I] bool: items that are out of the ranking, never the target |
    | columns_B | [B] int64: the target's column |

    Returns ranks [B] int64, from 1, and up to `num_best` columns per user, best first, the target left out.
    Among items of the target's score its place is drawn by (seed, user_id), the same for every ranker. Raises
    ValueError where a score that counts is not finite.
    """
    ranks_B, best = np.empty(len(scores_BI), dtype=np.int64), []
    for row, user in enumerate(users):
        scores = np.where(hidden_BI[row], -np.inf, scores_BI[row])
        _require_finite(scores[~hidden_BI[row]], user)
        target = scores[columns_B[row]]
        num_equal = int((scores == target).sum()) - 1
        before = seeds.generator(seed, "ties", user).integers(0, num_equal + 1) if num_equal else 0
        ranks_B[row] = 1 + int((scores > target).sum()) + before
        scores[columns_B[row]] = -np.inf
        size = min(num_best, int(np.isfinite(scores).sum()))
        top = np.sort(np.argpartition(-scores, size - 1)[:size]) if size else np.zeros(0, dtype=np.int64)
        best.append(top[np.argsort(-scores[top], kind="stable")].tolist())
    return ranks_B, best


def _require_finite(scores: np.ndarray, user: str) -> None:
    if not np.isfinite(scores).all():
        raise ValueError(f"user {user!r}: a score is not finite, expected numbers")

"""Leave-one-out: each user's held-back item among sampled items that the user never had.

Source: A-LLMRec, KDD 2024, section 5.1.

Draws come from (seed, user_id), so a user's negatives depend on no other user, no order and no partitioning;
they are the same for every ranker. The blend's fit for evaluation uses the same lists.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from allmrec import seeds
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.scoring.retrieval import Retriever


def lists_with_target(
    users: Sequence[str],
    histories: Sequence[Sequence[str]],
    targets: Sequence[str],
    seen: Sequence[Sequence[str]],
    retriever: Retriever,
    num_negatives: int,
    seed: int,
) -> CandidateLists:
    """Return scored lists of each user's target, first, and up to `num_negatives` sampled items.

    `seen` holds the items that a user ever had; those that the bundle lacks are passed over. Raises
    InputError where the bundle lacks a target.
    """
    index, ids = retriever.bundle.index, retriever.bundle.items["item_id"].tolist()
    candidates = []
    for user, target, items in zip(users, targets, seen, strict=True):
        had = {index[item] for item in (*items, target) if item in index}
        negatives = sample_negatives(user, had, len(ids), num_negatives, seed)
        candidates.append([target, *(ids[idx - 1] for idx in negatives)])
    return retriever.score(users, histories, candidates)


def sample_negatives(
    user_id: str, seen: Collection[int], num_items: int, num_negatives: int, seed: int
) -> list[int]:
    """Return `num_negatives` distinct item_idx out of 1..num_items, none of them in `seen`.

    They are drawn uniformly by (seed, user_id).

    `seen` holds everything the user ever had and the target. Fewer are returned where the catalogue has no
    more.
    """
    is_free = np.ones(num_items + 1, dtype=bool)
    is_free[[0, *(idx for idx in seen if idx <= num_items)]] = False
    free = np.flatnonzero(is_free)
    chosen = seeds.generator(seed, "negatives", user_id).choice(
        len(free), size=min(num_negatives, len(free)), replace=False
    )
    return free[chosen].tolist()


def ranks_of_candidates(scores_BC: np.ndarray, lists: CandidateLists, seed: int) -> list[list[int]]:
    """Return the rank of every candidate, from 1, higher scores [B, C] first, as one list per user.

    Equal scores are ordered at random by (seed, user_id), the same for every ranker: a tie favours the target
    no more than any other, wherever it stands in the list. Raises ValueError where a candidate's score is not
    finite.
    """
    ranks = []
    for user, scores_C, count in zip(lists.users, scores_BC, lists.counts.tolist(), strict=True):
        scores = np.asarray(scores_C[:count], dtype=np.float64)
        if not np.isfinite(scores).all():
            raise ValueError(f"user {user!r}: a score is not finite, expected numbers")
        chance = seeds.generator(seed, "ties", user).permutation(count)
        user_ranks = np.empty(count, dtype=np.int64)
        user_ranks[np.lexsort((chance, -scores))] = np.arange(1, count + 1)
        ranks.append(user_ranks.tolist())
    return ranks


def target_ranks(
    candidates: Sequence[Sequence[str]], ranks: Sequence[Sequence[int]], targets: Sequence[str]
) -> np.ndarray:
    """Return the rank of each user's target, [B] float64; infinity where it is not among the candidates."""
    ranks_B = np.full(len(targets), np.inf)
    for row, (ids, user_ranks, target) in enumerate(zip(candidates, ranks, targets, strict=True)):
        positions = list(ids)
        if target in positions:
            ranks_B[row] = user_ranks[positions.index(target)]
    return ranks_B

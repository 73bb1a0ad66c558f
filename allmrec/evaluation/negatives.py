"""Sampled negatives of held-out items.

Source: A-LLMRec, KDD 2024, section 5.1 (drawn uniformly); Sun et al., CIKM 2019, section 4.1 (BERT4Rec; drawn
by popularity).

Draws depend on (seed, user_id), not on other users, order or partitioning, and are the same for every ranker.
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
    seen_before: Sequence[Sequence[str]],
    retriever: Retriever,
    num_negatives: int,
    seed: int,
    by_popularity: bool = False,
) -> CandidateLists:
    """Return scored lists of each target and `num_negatives` sampled items.

    The target is first. `seen_before` has the items that a user had before the target, some of which the
    bundle may lack. Raises InputError where the bundle lacks a target.
    """
    index = retriever.bundle.index
    ids = retriever.bundle.items["item_id"].tolist()
    weights = retriever.assortment.num_interactions[1:] if by_popularity else None
    candidates = []
    for user, target, items in zip(users, targets, seen_before, strict=True):
        had = {index[item] for item in (*items, target) if item in index}
        negatives = sample_negatives(user, had, len(ids), num_negatives, seed, weights)
        candidates.append([target, *(ids[idx - 1] for idx in negatives)])
    return retriever.score(users, histories, candidates)


def sample_negatives(
    user_id: str,
    seen: Collection[int],
    num_items: int,
    num_negatives: int,
    seed: int,
    weights: np.ndarray | None = None,
) -> list[int]:
    """Return `num_negatives` distinct item_idx out of 1..num_items without those in `seen`.

    They are drawn by (seed, user_id): uniformly, or one after another in proportion to `weights` [num_items]
    ≥ 0; items of weight 0 come last.

    `seen` has the items that the user had before, and the target. Fewer are returned if the catalogue has no
    more.
    """
    is_free = np.ones(num_items + 1, dtype=bool)
    is_free[[0, *(idx for idx in seen if idx <= num_items)]] = False
    free = np.flatnonzero(is_free)
    size = min(num_negatives, len(free))
    if weights is None:
        chosen = seeds.generator(seed, "negatives", user_id).choice(len(free), size=size, replace=False)
        return free[chosen].tolist()
    # Waiting times: the first of all is drawn, in proportion to the weights (Efraimidis & Spirakis 2006).
    waiting = seeds.generator(seed, "popular negatives", user_id).exponential(size=len(free))
    with np.errstate(divide="ignore"):
        return free[np.argsort(waiting / weights[free - 1], kind="stable")[:size]].tolist()

"""The protocol (A-LLMRec §5.1): each user's held-out last item among sampled items that the user never had, the same for every model.

Draws come from (seed, user_id), so a user's negatives depend on no other user, no order and no partitioning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from allmrec import seeds
from allmrec.config import Config
from allmrec.ranking.served import order_scores

if TYPE_CHECKING:
    from allmrec.bundle import Bundle

MODELS = ("popularity", "text", "cf", "blend", "llm", "served")
"""Interactions in training; text similarity; the CF model; the blend without the LLM; A-LLMRec by itself; what a night would serve."""


def sample_negatives(
    user_id: str, seen: Collection[int], num_items: int, num_negatives: int, seed: int
) -> list[int]:
    """Return `num_negatives` distinct item_idx out of 1..num_items, none of them in `seen`, drawn uniformly by (seed, user_id).

    `seen` holds everything the user ever had and the target. Fewer are returned where the catalogue has no more.
    """
    free = np.ones(num_items + 1, dtype=bool)
    free[[0, *(idx for idx in seen if idx <= num_items)]] = False
    unseen = np.flatnonzero(free)
    drawn = seeds.generator(seed, "negatives", user_id).choice(
        len(unseen), size=min(num_negatives, len(unseen)), replace=False
    )
    return unseen[drawn].tolist()


def model_scores(
    frame: pd.DataFrame, model: str, bundle: Bundle, config: Config | None = None
) -> list[np.ndarray]:
    """Return how `model` (of `MODELS`) scores every user's candidates: a float64 array a user, all finite, higher is better.

    `frame` is what `Scorer.score` returns; `config` says what is served (None: the bundle's own).
    """
    num_interactions = dict(
        zip(bundle.items["item_id"], bundle.items["num_interactions"].tolist(), strict=True)
    )
    return order_scores(frame, model, bundle.blends, num_interactions, config or bundle.config)


def ranks_of_candidates(scores: Sequence[np.ndarray], user_ids: Sequence[str], seed: int) -> list[list[int]]:
    """Return the rank of every candidate, from 1, higher scores first.

    Equal scores are ordered at random by (seed, user_id), the same for every model: a tie favours the target no more than any other, wherever
    it stands in the list. Raises ValueError for a score that is not finite.
    """
    ranks = []
    for found, user_id in zip(scores, user_ids, strict=True):
        found = np.asarray(found, dtype=np.float64)
        if not np.isfinite(found).all():
            raise ValueError(f"user {user_id!r}: a score is not finite, expected numbers")
        chance = seeds.generator(seed, "ties", user_id).permutation(len(found))
        place = np.empty(len(found), dtype=np.int64)
        place[np.lexsort((chance, -found))] = np.arange(1, len(found) + 1)
        ranks.append(place.tolist())
    return ranks


def target_ranks(
    candidates: Sequence[Sequence[str]], ranks: Sequence[Sequence[int]], targets: Sequence[str]
) -> np.ndarray:
    """Return the rank of each user's target, float64 [N]; infinity where it is not among the candidates."""
    found = np.full(len(targets), np.inf)
    for row, (ids, places, target) in enumerate(zip(candidates, ranks, targets, strict=True)):
        ids = list(ids)
        if target in ids:
            found[row] = places[ids.index(target)]
    return found

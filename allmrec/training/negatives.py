"""Sampled negatives, uniform over the items with interactions in training, from torch's default generator (seeded anew for every step)."""

from __future__ import annotations

import torch
from torch import Tensor

TRIES = 4


def drawn(known_items_K: Tensor, count: int) -> Tensor:
    """Return `count` item_idx [count] int64, drawn with replacement from `known_items_K`. Drawn on the CPU: the same on every device."""
    return known_items_K[torch.randint(len(known_items_K), (count,)).to(known_items_K.device)]


def never_had(sequences_NL: Tensor, known_items_K: Tensor) -> Tensor:
    """Return a negative a row [N] that is not in the row's sequence; after TRIES more draws (a user who had nearly all items) the last one
    stands."""
    negatives_N = drawn(known_items_K, len(sequences_NL))
    for _ in range(TRIES):
        had_N = (sequences_NL == negatives_N[:, None]).any(dim=1)
        negatives_N = torch.where(had_N, drawn(known_items_K, len(sequences_NL)), negatives_N)
    return negatives_N

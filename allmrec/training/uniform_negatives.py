"""Sampled negatives, uniform over the items with interactions in training.

They come from torch's default generator, which the training loop seeds anew for every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUM_REDRAWS = 4


def drawn(known_items_K: Tensor, count: int) -> Tensor:
    """Return `count` item_idx [count] int64, drawn with replacement from `known_items_K` [K] int64.

    They are drawn on the CPU, so that they are the same on every device.
    """
    return known_items_K[torch.randint(len(known_items_K), (count,)).to(known_items_K.device)]


def never_had(sequences_NL: Tensor, known_items_K: Tensor) -> Tensor:
    """Return one negative per row [N] int64 that is not in the row's sequence.

    A negative that the user had is drawn again up to NUM_REDRAWS times; for a user who had nearly all items
    the last draw stands.

    | input | shape |
    |---|---|
    | sequences_NL | [N, L] int64 item_idx, 0 is padding |
    | known_items_K | [K] int64 item_idx to draw from |
    """
    negatives_N = drawn(known_items_K, len(sequences_NL))
    for _ in range(NUM_REDRAWS):
        had_N = (sequences_NL == negatives_N[:, None]).any(dim=1)
        negatives_N = torch.where(had_N, drawn(known_items_K, len(sequences_NL)), negatives_N)
    return negatives_N

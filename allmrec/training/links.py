"""Counting the links between items in the snapshot."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from allmrec.models.links import WINDOW, Links, Vocabulary, together
from allmrec.training.loader import Snapshot

BATCH = 16_384
"""Sequences whose pairs are counted together."""


def count_links(snapshot: Snapshot, items: pd.DataFrame) -> Links:
    """Return the links of the items of `Snapshot.items()`, from their titles and the train sequences."""
    size = snapshot.num_items + 1
    pairs_II = sparse.csr_matrix((size, size), dtype=np.float64)
    occurrences_I = np.zeros(size)
    for batch in snapshot.epoch(BATCH, seed=0, epoch=0, columns=("item_idx",)):
        items_BL = batch["item_idx"]
        occurrences_I += np.bincount(items_BL[items_BL > 0], minlength=size)
        pairs_II = pairs_II + _pairs(items_BL, size)
    titles = items["title"].tolist()
    return Links.of(Vocabulary.of(titles), titles, together(pairs_II, occurrences_I))


def _pairs(items_BL: np.ndarray, size: int) -> sparse.csr_matrix:
    """Return how often two items are at most `WINDOW` places apart, [I+1, I+1] float64, symmetric."""
    older = [items_BL[:, :-distance].ravel() for distance in range(1, WINDOW + 1)]
    newer = [items_BL[:, distance:].ravel() for distance in range(1, WINDOW + 1)]
    older_N = np.concatenate(older)
    newer_N = np.concatenate(newer)
    # Sequences are padded on the left.
    is_pair_N = older_N > 0
    older_N = older_N[is_pair_N]
    newer_N = newer_N[is_pair_N]
    pairs_II = sparse.csr_matrix((np.ones(len(older_N)), (older_N, newer_N)), shape=(size, size))
    return pairs_II + pairs_II.T

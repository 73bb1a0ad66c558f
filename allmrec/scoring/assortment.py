"""The assortment: the items that may be recommended tonight, and the search of them for many users at once.

A users × items matrix never exists: products are taken a block of items at a time, and only the best so far
are kept (exact, no index). Items that may not be recommended are left out before the cut, so nobody ends with
fewer candidates than there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from allmrec.bundle import Bundle
from allmrec.config import CandidatesConfig
from allmrec.scoring.nearest import Search, nearest
from allmrec.scoring.signals import UNFITTED, Signals
from allmrec.scoring.user_vectors import UserEncoder, UserVectors

BLOCK_ITEMS = 8192
"""Items per block of the matrix product: the products of a chunk with a block are 64 MiB."""


class SeenPairs(NamedTuple):
    """What users have seen, where seen items are left out."""

    rows: np.ndarray
    """[N] int64: rows of the users, ascending."""
    items: np.ndarray
    """[N] int64 item_idx."""


NOTHING_SEEN = SeenPairs(np.zeros(0, np.int64), np.zeros(0, np.int64))


class BestItems(NamedTuple):
    """Items that a search found: item_idx [B, num_candidates] int64, best first, 0 after the last."""

    of_all: np.ndarray
    """The best of all items, by all signals."""
    of_rare: np.ndarray
    """The best of the rare items, without the CF model; [B, 0] where `candidates.text_quota` is 0."""


class Assortment:
    """The items of a bundle that may be recommended.

    Parameters
    ----------
    bundle: the model bundle.
    encoder: the bundle's, with the vectors of its items.
    available: which items may be recommended tonight, [I+1] bool; None: all of the bundle.
    settings: the section `candidates`.
    """

    def __init__(
        self, bundle: Bundle, encoder: UserEncoder, available: np.ndarray | None, settings: CandidatesConfig
    ) -> None:
        self.bundle = bundle
        self.encoder = encoder
        self.settings = settings
        self.num_interactions = np.concatenate(
            [[0], bundle.items["num_interactions"].to_numpy(dtype=np.int64)]
        )
        everything = np.ones(len(self.num_interactions), dtype=bool)
        available = everything if available is None else available.copy()
        available[0] = False
        self.items = np.flatnonzero(available)
        self.rare_items = np.flatnonzero(available & (self.num_interactions < settings.rare_below))
        self._signals = Signals(encoder)
        self._weights = bundle.search or UNFITTED

    def search(self, vectors: UserVectors, seen: SeenPairs) -> BestItems:
        """Return the best unseen items of every user, found in one pass over the items."""
        wanted = self.settings.num_candidates
        pairs = self._signals.weighted(vectors, self._weights)
        # The CF model's come last: until them a sum is what the others say.
        with_cf = [pairs.pop(name) for name in ("cf", "unknown") if name in pairs]
        searches = [Search(len(pairs) + len(with_cf), self.items, wanted)]
        if self.settings.text_quota:
            searches.append(Search(len(pairs), self.rare_items, wanted))
        linked = self._signals.weighted_links(vectors, self._weights)
        (_, best), *others = nearest(
            [*pairs.values(), *with_cf], searches, seen.rows, seen.items, BLOCK_ITEMS, linked
        )
        return BestItems(best, others[0][1] if others else np.zeros((len(best), 0), dtype=np.int64))


@dataclass(frozen=True)
class AskedUsers:
    """The B users for whom sources are asked."""

    histories: Sequence[Sequence[str]]
    """B sequences of item ids, oldest first."""
    vectors: UserVectors
    seen: SeenPairs
    assortment: Assortment

    def __len__(self) -> int:
        return len(self.histories)

    @cached_property
    def best(self) -> BestItems:
        """What the search of the assortment finds; it is shared by the sources that read it."""
        return self.assortment.search(self.vectors, self.seen)

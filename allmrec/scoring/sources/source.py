"""The contract of a candidate source."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from allmrec.scoring.assortment import AskedUsers


class Source(Protocol):
    """A source of candidates, made once from the assortment, and asked for many users at a time."""

    @property
    def name(self) -> str:
        """The column `sources` of `candidates` names the source of a candidate so."""
        ...

    @property
    def quota(self) -> int | None:
        """Places per user reserved for this source; None: it fills the places that no quota reserves."""
        ...

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        """Return item_idx [B, wanted] int64, best first, 0 where there are no more.

        They are distinct items of `users.assortment.items` that the user has not seen (`users.seen`).
        `wanted` is `candidates.num_candidates`.
        """
        ...

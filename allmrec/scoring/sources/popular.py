"""The source of popular items."""

from __future__ import annotations

import numpy as np

from allmrec.scoring.assortment import AskedUsers, Assortment


class PopularItems:
    """The items with most interactions in training, equal ones by item_idx."""

    name = "popular"
    quota = None

    def __init__(self, assortment: Assortment) -> None:
        items = assortment.items
        order = np.argsort(-assortment.num_interactions[items], kind="stable")
        self._items = items[order]
        self._place_of_item = np.full(len(assortment.num_interactions), len(items))
        self._place_of_item[self._items] = np.arange(len(items))

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        """Return item_idx [B, wanted] int64, 0 where there are no more."""
        # Of a user's first (wanted + num_seen) items at most num_seen are left out.
        num_seen_B = np.bincount(users.seen.rows, minlength=len(users))
        length_B = np.minimum(wanted + num_seen_B, len(self._items))
        start_B = np.cumsum(length_B) - length_B
        row_N = np.repeat(np.arange(len(users)), length_B)
        place_N = np.arange(len(row_N)) - start_B[row_N]

        seen_place_M = self._place_of_item[users.seen.items]
        is_near_M = seen_place_M < length_B[users.seen.rows]
        is_free_N = np.ones(len(row_N), dtype=bool)
        is_free_N[start_B[users.seen.rows[is_near_M]] + seen_place_M[is_near_M]] = False
        row_N = row_N[is_free_N]
        place_N = place_N[is_free_N]

        column_N = np.arange(len(row_N)) - np.searchsorted(row_N, row_N)
        is_wanted_N = column_N < wanted
        found = np.zeros((len(users), wanted), dtype=np.int64)
        found[row_N[is_wanted_N], column_N[is_wanted_N]] = self._items[place_N[is_wanted_N]]
        return found

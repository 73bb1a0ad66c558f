"""A shop's rules on the slots of e-mails: pinned, boosted and buried items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

EMPTY = -1
"""The place in a slot that stays empty."""


@dataclass(frozen=True)
class ShopRules:
    """What rules say about the items of B users."""

    pinned: np.ndarray
    """[B, C] int: the slot of a pinned item, from 1; 0 for other items."""
    buried: np.ndarray
    """[B, C] bool: whether the item comes after all others."""
    boosted: Mapping[str, np.ndarray]
    """By rule: [B, C] bool, the items that it boosts."""
    floors: Mapping[str, int]
    """By rule: how many slots its items get at least, as far as a user has such items."""

    def wanted(self, places_BK: np.ndarray) -> np.ndarray:
        """Return the items of boosts that have too few of these slots, [B, C] bool."""
        wanted_BC = np.zeros(self.buried.shape, dtype=bool)
        for name, boosted_BC in self.boosted.items():
            taken_BK = at(boosted_BC, places_BK) & (places_BK != EMPTY)
            is_below_B = taken_BK.sum(axis=1) < self.floors[name]
            wanted_BC |= boosted_BC & is_below_B[:, None]
        return wanted_BC

    def with_pins(self, places_BK: np.ndarray) -> np.ndarray:
        """Return ordered places with the pinned ones in their slots, empty ones last.

        The others keep their order in the other slots. In an e-mail with fewer items than a pinned slot the
        pinned item is the last.
        """
        num_slots = places_BK.shape[1]
        slot_BK = np.where(places_BK == EMPTY, 0, at(self.pinned, places_BK))
        is_taken_BK = (np.arange(1, num_slots + 1) == slot_BK[:, :, None]).any(axis=1)
        free_BK = np.argsort(is_taken_BK, axis=1, kind="stable")
        is_other_BK = (places_BK != EMPTY) & (slot_BK == 0)
        number_BK = (is_other_BK.cumsum(axis=1) - 1).clip(min=0)
        key_BK = np.where(is_other_BK, np.take_along_axis(free_BK, number_BK, axis=1), slot_BK - 1)
        key_BK = np.where(places_BK == EMPTY, num_slots, key_BK)
        return np.take_along_axis(places_BK, np.argsort(key_BK, axis=1, kind="stable"), axis=1)


def at(values_BC: np.ndarray, places_BK: np.ndarray) -> np.ndarray:
    """Return the values at places, [B, K]; any value at `EMPTY`."""
    if not values_BC.size:
        return np.zeros_like(places_BK, dtype=values_BC.dtype)
    return np.take_along_axis(values_BC, places_BK.clip(min=0), axis=1)

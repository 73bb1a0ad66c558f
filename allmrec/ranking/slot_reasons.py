"""Reasons of slots: the item of the user's history that speaks most for an item, and a template text.

An item's relevance is taken as the sum of its likenesses to the history, by text (cosine of Q) and by the CF
model (cosine of E). Leaving out an item of the history then costs the likeness to it. The item of the largest
cost is the because-item, and the larger of its two likenesses is the reason. An item that is in the history
itself was bought before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIMILAR = "similar to"
BOUGHT_AFTER = "often bought after"
BOUGHT_BEFORE = "bought before"
POPULAR = "popular"
NEW = "new in the shop"
NOTHING = -1
"""The place of the because-item where no item of the history speaks for an item."""


@dataclass(frozen=True)
class Likeness:
    """The likenesses of a user's C items to the L items of the history, for B users.

    They are 0 beyond a user's items and history.
    """

    text: np.ndarray
    """[B, C, L] float32: cosine of the texts."""
    cf: np.ndarray
    """[B, C, L] float32: cosine of the CF model's item vectors."""
    same: np.ndarray
    """[B, C, L] bool: whether the item is that item of the history."""


@dataclass(frozen=True)
class Reasons:
    """The reasons of B users' C items."""

    places: np.ndarray
    """[B, C] int64: the because-item's column of the history, or `NOTHING`."""
    texts: np.ndarray
    """[B, C] object: one of the five texts."""


def likeness(items_BCS: np.ndarray, history_BLS: np.ndarray) -> np.ndarray:
    """Return the products of the vectors of items and history, [B, C, L] float32."""
    return np.matmul(items_BCS, history_BLS.transpose(0, 2, 1))


def reasons(found: Likeness, is_popular_BC: np.ndarray, is_new_BC: np.ndarray) -> Reasons:
    """Return the reason of every item.

    `is_popular_BC` marks items of lists without a known history, `is_new_BC` items without an interaction in
    training. Where no item of the history speaks for an item, it is new or popular. Of equal likenesses the
    newest item of the history counts.
    """
    num_users, width, length = found.text.shape
    if not length:
        places_BC = np.full((num_users, width), NOTHING)
        return Reasons(places_BC, np.where(is_new_BC, NEW, POPULAR).astype(object))
    # Two cosines are at most 2, so that an item's own event comes first.
    cost_BCL = found.text + found.cf + 4.0 * found.same
    best_BC = length - 1 - cost_BCL[:, :, ::-1].argmax(axis=2)
    cost_BC, text_BC, cf_BC, same_BC = (
        np.take_along_axis(one, best_BC[:, :, None], axis=2)[:, :, 0]
        for one in (cost_BCL, found.text, found.cf, found.same)
    )
    has_BC = (cost_BC > 0) & ~is_popular_BC
    of_history_BC = np.where(same_BC, BOUGHT_BEFORE, np.where(cf_BC > text_BC, BOUGHT_AFTER, SIMILAR))
    texts_BC = np.where(has_BC, of_history_BC, np.where(is_new_BC, NEW, POPULAR))
    return Reasons(np.where(has_BC, best_BC, NOTHING), texts_BC.astype(object))

"""Slots of an e-mail: the few items of a list that are relevant and unlike each other.

The slots are filled one after another (greedy maximal marginal relevance). The next item is the one with the
highest (1 - diversity) · relevance - diversity · likeness, where likeness is the largest cosine to the items
in the slots so far. Rules come before this value; those of a shop are 0 and 3 (`ShopRules`):

0. pinned items are chosen first, and buried ones after all others,
1. a near-duplicate of an item in a slot comes after all other items,
2. then an item like one that the user bought lately comes after the others,
3. then items of a boost that has too few slots come before the others,
4. then an item over a cap, such as the third one of a category, comes after the others,
5. then an item that was shown lately, the longer ago the earlier.

Such items fill slots only where nothing else is left. Two items of one title are never in the same e-mail.
A cap comes before what was shown, because lists of few kinds would else break the cap every other night: on
three nights of the demo shop 51, 76 and 88 % of the e-mails did, instead of 51 % each, with a fifth of the
slots repeated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from allmrec.ranking.slot_rules import EMPTY, ShopRules, at

TITLE_PAIRS = 256
"""Pairs of characters are hashed into this many bins."""
TITLE_DUPLICATE_ABOVE = 0.8
"""Titles that share a larger part of their pairs of characters are nearly the same.

They differ by a size, a colour or a number of pieces. On 16,000 pairs of neighbours in three catalogues the
limit included each pair with a `difflib` ratio above .9, which takes a thousand times as long to compute.
"""


@dataclass(frozen=True)
class Pools:
    """The items among which the slots of B users are filled, by rank.

    Values beyond a user's n items are ignored.
    """

    sizes: np.ndarray
    """n, the number of items of every user, [B] int."""
    relevance: np.ndarray
    """[B, C] float, the higher the better."""
    vectors: np.ndarray
    """[B, C, S] float32 of length 1; zeros where an item has none, so that nothing is like it."""
    titles: np.ndarray
    """[B, C] int: equal numbers have the same title (`numbered_titles`)."""
    pairs: np.ndarray
    """[B, C, P] int16: how often the title has each pair of characters (`title_pairs`)."""
    shown: np.ndarray
    """[B, C] int: 0 where the item was not shown lately, else the higher the later it was."""
    bought: np.ndarray
    """[B, C] bool: whether the item is like one that the user bought lately."""
    groups: Mapping[str, np.ndarray]
    """By column: [B, C] int, equal numbers are one group, such as a category."""
    rules: ShopRules
    """The shop's rules."""

    @cached_property
    def num_pairs(self) -> np.ndarray:
        """The number of pairs of every title, [B, C] int64."""
        return self.pairs.sum(axis=2)


@dataclass(frozen=True)
class Filled:
    """The slots of B users."""

    places: np.ndarray
    """[B, K] int64: columns of the pool by slot, then `EMPTY`.

    Pinned items are in their slots, the others by rank. Items that were shown lately come after the others,
    then those like bought ones, and buried ones last.
    """
    over_cap: np.ndarray
    """[B] bool: whether a group has more items than its cap."""
    near_duplicates: np.ndarray
    """[B] bool: whether two items are nearly the same."""
    shown: np.ndarray
    """[B] int64: the number of items that were shown lately."""


def fill(
    pools: Pools, num_slots: int, diversity: float, duplicate_above: float, caps: Mapping[str, int]
) -> Filled:
    """Return the slots of every user.

    A user gets `num_slots` items, or as many as there are titles. `diversity` is 0 (relevance alone) to 1
    (likeness alone). Items are near-duplicates if the cosine of their vectors is above `duplicate_above`, or
    if their titles share more than `TITLE_DUPLICATE_ABOVE` of their pairs of characters. `caps` has the
    largest number of items of a group by column of `pools.groups`. A user's slots depend on no other user.
    """
    num_users, width = pools.relevance.shape
    rows_B = np.arange(num_users)
    is_left_BC = np.arange(width) < pools.sizes[:, None]
    relevance_BC = scaled(pools.relevance, pools.sizes)
    likeness_BC = np.zeros((num_users, width))
    is_near_BC = np.zeros((num_users, width), dtype=bool)
    taken = {name: np.zeros((num_users, width), dtype=np.int64) for name in caps}
    above = pools.shown.max(initial=0) + 1
    rules = pools.rules
    lasting_BC = pools.shown + above * (4 * pools.bought + 16 * rules.buried - 32 * (rules.pinned > 0))
    places_BK = np.full((num_users, num_slots), EMPTY)
    over_cap_B = np.zeros(num_users, dtype=bool)
    near_B = np.zeros(num_users, dtype=bool)
    for slot in range(min(num_slots, width)):
        is_over_BC = _over_caps(taken, caps, is_left_BC.shape)
        # A value is in [-1, 1], so that one step of a rule outweighs every difference of values.
        rule_BC = lasting_BC + above * (is_over_BC + 8 * is_near_BC - 2 * rules.wanted(places_BK))
        value_BC = (1 - diversity) * relevance_BC - diversity * likeness_BC - 4.0 * rule_BC
        chosen_B = np.where(is_left_BC, value_BC, -np.inf).argmax(axis=1)
        fills_B = is_left_BC[rows_B, chosen_B]
        places_BK[fills_B, slot] = chosen_B[fills_B]
        over_cap_B |= fills_B & is_over_BC[rows_B, chosen_B]
        near_B |= fills_B & is_near_BC[rows_B, chosen_B]
        is_left_BC &= pools.titles != pools.titles[rows_B, chosen_B][:, None]
        for name in caps:
            group_BC = pools.groups[name]
            taken[name] += group_BC == group_BC[rows_B, chosen_B][:, None]
        cosine_BC = np.einsum("bcs,bs->bc", pools.vectors, pools.vectors[rows_B, chosen_B])
        likeness_BC = np.maximum(likeness_BC, cosine_BC)
        is_near_BC |= (cosine_BC > duplicate_above) | _has_near_title(pools, chosen_B)
    shown_BK = np.where(places_BK == EMPTY, 0, at(pools.shown, places_BK))
    later_BC = pools.shown + above * (pools.bought + 2 * rules.buried)
    places_BK = rules.with_pins(_in_order(places_BK, at(later_BC, places_BK)))
    return Filled(places_BK, over_cap_B, near_B, (shown_BK > 0).sum(axis=1))


def _over_caps(
    taken: Mapping[str, np.ndarray], caps: Mapping[str, int], shape: tuple[int, ...]
) -> np.ndarray:
    """Return the items of a group that has as many slots as its cap, [B, C] bool."""
    is_over_BC = np.zeros(shape, dtype=bool)
    for name, cap in caps.items():
        is_over_BC |= taken[name] >= cap
    return is_over_BC


def _has_near_title(pools: Pools, chosen_B: np.ndarray) -> np.ndarray:
    """Return which titles share most of their pairs with that of the chosen place [B], [B, C] bool."""
    chosen_BP = pools.pairs[np.arange(len(chosen_B)), chosen_B]
    shared_BC = np.minimum(pools.pairs, chosen_BP[:, None]).sum(axis=2)
    both_BC = pools.num_pairs + chosen_BP.sum(axis=1)[:, None]
    return 2 * shared_BC > TITLE_DUPLICATE_ABOVE * both_BC


def _in_order(places_BK: np.ndarray, later_BK: np.ndarray) -> np.ndarray:
    """Return the places by rank, those of a larger `later` after the others, empty ones last."""
    last = places_BK.max(initial=0) + 1
    key_BK = np.where(places_BK == EMPTY, (later_BK.max(initial=0) + 1) * last, later_BK * last + places_BK)
    return np.take_along_axis(places_BK, np.argsort(key_BK, axis=1, kind="stable"), axis=1)


def scaled(relevance_BC: np.ndarray, sizes_B: np.ndarray) -> np.ndarray:
    """Return the relevance from 0 to 1 within every user's list, [B, C] float64; equal ones are all 1."""
    present_BC = np.arange(relevance_BC.shape[1]) < sizes_B[:, None]
    low_B1 = np.where(present_BC, relevance_BC, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high_B1 = np.where(present_BC, relevance_BC, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    span_B1 = np.where(high_B1 > low_B1, high_B1 - low_B1, 1.0)
    above_BC = np.where(present_BC, relevance_BC - np.where(sizes_B[:, None] > 0, low_B1, 0.0), 0.0)
    return np.where(high_B1 > low_B1, above_BC / span_B1, present_BC.astype(float))


@lru_cache(maxsize=2**16)
def normalised(title: str) -> str:
    """Return a title in lower case, its words separated by one blank; a title without words as it is."""
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", title).casefold()).strip()
    return words or title


def numbered_titles(titles: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return a number of every title's normalised form, [N] int64, and these forms by number."""
    known: dict[str, int] = {}
    numbers = [known.setdefault(normalised(title), len(known)) for title in titles]
    return np.array(numbers, dtype=np.int64), list(known)


def title_pairs(titles: Sequence[str]) -> np.ndarray:
    """Return how often each title has each pair of characters, hashed: [N, TITLE_PAIRS] int16."""
    text_T = np.frombuffer("".join(titles).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
    title_T = np.repeat(np.arange(len(titles)), [len(title) for title in titles])
    is_pair = title_T[1:] == title_T[:-1]
    bin_T = (text_T[:-1] * 31 + text_T[1:]) % TITLE_PAIRS
    counted = np.bincount((title_T[:-1] * TITLE_PAIRS + bin_T)[is_pair], minlength=len(titles) * TITLE_PAIRS)
    return counted.reshape(len(titles), TITLE_PAIRS).clip(max=2**15 - 1).astype(np.int16)

"""Token ids of titles and of prompts, and places of soft tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

USER = 0
"""The user in `Prompt.soft_items` (item_idx 0 is padding and never an item)."""


@dataclass(frozen=True)
class TitleTokens:
    """Token ids of the titles of items 1..I, one after another.

    | field | shape |
    |---|---|
    | flat | [number of all tokens] int32 |
    | offsets | [I+2] int64; item_idx i owns flat[offsets[i] : offsets[i+1]], the padding item 0 nothing |
    | is_cut | [I+1] bool: the title is truncated here; None: unknown (version 0.1.0) |
    """

    flat: np.ndarray
    offsets: np.ndarray
    is_cut: np.ndarray | None = None

    @classmethod
    def from_lists(
        cls, tokens: Sequence[Sequence[int]], is_cut: Sequence[bool] | np.ndarray | None = None
    ) -> TitleTokens:
        """Return titles of token ids, a list per item_idx from 0."""
        lengths = [0, *(len(title) for title in tokens)]
        ids = (token for title in tokens for token in title)
        flat = np.fromiter(ids, dtype=np.int32, count=sum(lengths))
        cut = None if is_cut is None else np.array(is_cut, dtype=bool)
        return cls(flat, np.cumsum(lengths, dtype=np.int64), cut)

    def of(self, idx: int) -> list[int]:
        """Return the token ids of item `idx`. Empty for the padding item 0."""
        return self.flat[self.offsets[idx] : self.offsets[idx + 1]].tolist()

    def is_whole(self, idx: int) -> bool:
        """Return whether the title is complete; unknown counts as complete."""
        return self.is_cut is None or not self.is_cut[idx]

    @property
    def num_items(self) -> int:
        """I, the number of items without the padding item."""
        return len(self.offsets) - 2

    def capped(self, cap: int) -> TitleTokens:
        """Return the same titles with at most `cap` tokens each."""
        lengths = np.diff(self.offsets)
        capped_lengths = np.minimum(lengths, cap)
        index_in_title = np.arange(len(self.flat)) - np.repeat(self.offsets[:-1], lengths)
        return TitleTokens(
            self.flat[index_in_title < np.repeat(capped_lengths, lengths)],
            np.concatenate([[0], np.cumsum(capped_lengths)]).astype(np.int64),
            None if self.is_cut is None else self.is_cut | (lengths > cap),
        )


@dataclass
class Prompt:
    """Token ids with 0 at soft tokens, and these tokens' places.

    `soft_items` has item_idx, or `USER`.
    """

    token_ids: list[int] = field(default_factory=list)
    soft_positions: list[int] = field(default_factory=list)
    soft_items: list[int] = field(default_factory=list)

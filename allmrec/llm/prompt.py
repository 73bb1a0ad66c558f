"""The prompt as token ids and soft-token positions, in three layouts (method §4; paper §4.2 and figure 3).

Text is data: every segment (words of the layout, each title) is tokenised by itself and soft tokens are placed by position, so that no title
can move one, close a quote that the layout opened, or turn into a special token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from allmrec.config import PromptConfig
from allmrec.errors import InputError
from allmrec.llm.domains import DOMAINS

USER = 0
"""Stands for the user among `Prompt.soft_items` (item_idx 0 is padding and never an item)."""


@dataclass(frozen=True)
class TitleTokens:
    """Token ids of all titles, one after another: `flat` int32 [N], `offsets` int64 [I+2]; item_idx i owns flat[offsets[i]:offsets[i+1]]."""

    flat: np.ndarray
    offsets: np.ndarray

    def of(self, idx: int) -> list[int]:
        """Return the token ids of item `idx` (none for the padding item 0)."""
        return self.flat[self.offsets[idx] : self.offsets[idx + 1]].tolist()

    @property
    def num_items(self) -> int:
        """I, the number of items without the padding item."""
        return len(self.offsets) - 2

    def capped(self, cap: int) -> TitleTokens:
        """Return the same titles with at most `cap` tokens each."""
        lengths = np.diff(self.offsets)
        kept = np.minimum(lengths, cap)
        within = np.arange(len(self.flat)) - np.repeat(self.offsets[:-1], lengths)
        return TitleTokens(
            self.flat[within < np.repeat(kept, lengths)],
            np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
        )


@dataclass
class Prompt:
    """Token ids with 0 where a soft token goes, the soft tokens' positions, and whose they are (item_idx, or `USER`)."""

    token_ids: list[int] = field(default_factory=list)
    soft_positions: list[int] = field(default_factory=list)
    soft_items: list[int] = field(default_factory=list)


class TokenSource(Protocol):
    """What a layout needs of an LLM."""

    @property
    def bos_ids(self) -> list[int]:
        """What precedes every prompt."""
        ...

    @property
    def eos_id(self) -> int:
        """End-of-sequence."""
        ...

    def tokenise(self, text: str) -> list[int]:
        """Return the ids of plain text."""
        ...


class PromptLayout:
    """Builds prompts and answers of one layout (`no_list`, `token_first` or `paper`) for one tokenizer.

    `tokenise(text)` gives plain token ids (no special tokens), `bos_ids` precede every prompt, `eos_id` ends an answer where the layout says so.
    Only the newest `history_items` of a history are used. `soft_tokens=False` leaves out user and item tokens (LLM-only).
    """

    def __init__(
        self,
        layout: str,
        domain: str,
        tokenise: Callable[[str], list[int]],
        bos_ids: Sequence[int],
        eos_id: int,
        history_items: int,
        soft_tokens: bool,
    ) -> None:
        words = DOMAINS[domain]
        self.layout, self.lists_candidates = layout, layout != "no_list"
        self.history_items, self.soft_tokens = history_items, soft_tokens
        self._tokenise, self._bos_ids = tokenise, list(bos_ids)
        self._quote = tokenise('"') if layout == "paper" else []
        self._separator = tokenise(", ") if self.lists_candidates else tokenise(";")
        self._terminator = {
            "paper": [*self._quote, eos_id],
            "token_first": [eos_id],
            "no_list": self._separator,
        }[layout]
        if self.lists_candidates:
            self._is_user = (
                tokenise(" is a user representation. ") if layout == "paper" and soft_tokens else []
            )
            self._has_had = tokenise(f"This user has {words.verb_past} ")
            self._before_list = tokenise(" in the previous. ")
            self._recommend = tokenise(
                f"Recommend one next {words.noun} for this user to {words.verb} next from the following {words.noun} title set, "
            )
            self._last = tokenise(
                '. The recommendation is "' if layout == "paper" else ". The recommendation is"
            )
        else:
            self._together = tokenise(f"{words.together}:")

    @classmethod
    def of(cls, settings: PromptConfig, llm: TokenSource) -> PromptLayout:
        """Return the layout that the section `prompt` asks for, in the tokens of `llm`."""
        return cls(
            settings.layout,
            settings.domain,
            llm.tokenise,
            llm.bos_ids,
            llm.eos_id,
            settings.history_items,
            settings.soft_tokens,
        )

    def title_text(self, title: str) -> str:
        """Return the one form in which a title is tokenised, in the history, the list and the answer."""
        return title if self.lists_candidates else f" {title}"

    def tokenise_titles(self, titles: Sequence[str], cap: int | None) -> TitleTokens:
        """Tokenise the titles of items 1..I, at most `cap` tokens each (None: all). Raises InputError for a title without any token."""
        rows: list[list[int]] = [[]]
        for number, title in enumerate(titles, start=1):
            tokens = self._tokenise(self.title_text(title))[:cap]
            if not title.strip() or not tokens:
                raise InputError(
                    f"items: the title {title!r} of item_idx {number} has no token, expected text; give it a title"
                )
            rows.append(tokens)
        lengths = [0, *(len(row) for row in rows)]
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=sum(lengths))
        return TitleTokens(flat, np.cumsum(lengths, dtype=np.int64))

    def prompt(self, history_idx: Sequence[int], candidate_idx: Sequence[int], titles: TitleTokens) -> Prompt:
        """Return the prompt for a history (oldest first) and the candidates in the order in which a list layout shows them."""
        history = [idx for idx in history_idx if idx > 0][-self.history_items :]
        prompt = Prompt(list(self._bos_ids))
        if self.lists_candidates:
            self._write_listing(prompt, history, candidate_idx, titles)
        else:
            self._write_bare(prompt, history, titles)
        return prompt

    def answer(self, idx: int, titles: TitleTokens) -> list[int]:
        """Return what is scored for item `idx`: its title's tokens and the layout's terminator."""
        return titles.of(idx) + self._terminator

    def opening(self) -> list[int]:
        """Return the bare opening of `no_list`, after which a title's prior is taken."""
        if self.lists_candidates:
            raise ValueError(f"the layout {self.layout} has no prior")
        return self._bos_ids + self._together

    def _write_bare(self, prompt: Prompt, history: Sequence[int], titles: TitleTokens) -> None:
        prompt.token_ids += self._together
        for idx in history:
            self._soft(prompt, idx)
            prompt.token_ids += titles.of(idx) + self._separator
        self._soft(prompt, USER)

    def _write_listing(
        self, prompt: Prompt, history: Sequence[int], candidates: Sequence[int], titles: TitleTokens
    ) -> None:
        if self.layout == "paper":
            self._soft(prompt, USER)
            prompt.token_ids += self._is_user
        if history:
            prompt.token_ids += self._has_had
            self._write_items(prompt, history, titles)
            prompt.token_ids += self._before_list
        prompt.token_ids += self._recommend
        self._write_items(prompt, candidates, titles)
        prompt.token_ids += self._last
        if self.layout == "token_first":
            self._soft(prompt, USER)

    def _write_items(self, prompt: Prompt, items: Sequence[int], titles: TitleTokens) -> None:
        for place, idx in enumerate(items):
            if place:
                prompt.token_ids += self._separator
            if self.layout == "paper":
                prompt.token_ids += self._quote + titles.of(idx) + self._quote
                self._soft(prompt, idx)
            else:
                self._soft(prompt, idx)
                prompt.token_ids += titles.of(idx)

    def _soft(self, prompt: Prompt, item: int) -> None:
        if self.soft_tokens:
            prompt.soft_positions.append(len(prompt.token_ids))
            prompt.soft_items.append(item)
            prompt.token_ids.append(0)

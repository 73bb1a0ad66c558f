"""The prompt as token ids and soft-token positions, in four layouts.

`paper` is the prompt of A-LLMRec (KDD 2024, section 4.2 and figure 3). `authors` is the same as the authors'
code writes it: the user's token stands before BOS, the answer begins with its quote, and a few blanks differ.
`token_first` lists the candidates too, with every soft token before its title; `no_list` has no instructions
and lists no candidates.

Text is data: every segment (words of the layout, each title) is tokenised by itself and soft tokens are
placed by position, so that no title can move one, close a quote that the layout opened, or turn into a
special token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from allmrec.config import PromptConfig
from allmrec.errors import InputError
from allmrec.llm.domains import DOMAINS, Domain

USER = 0
"""Stands for the user among `Prompt.soft_items` (item_idx 0 is padding and never an item)."""


@dataclass(frozen=True)
class TitleTokens:
    """Token ids of the titles of items 1..I, one after another.

    | field | shape |
    |---|---|
    | flat | [number of all tokens] int32 |
    | offsets | [I+2] int64; item_idx i owns flat[offsets[i] : offsets[i+1]], the padding item 0 nothing |
    | is_cut | [I+1] bool: the title goes on after its last token here; None: not known (version 0.1.0) |
    """

    flat: np.ndarray
    offsets: np.ndarray
    is_cut: np.ndarray | None = None

    @classmethod
    def from_lists(
        cls, tokens: Sequence[Sequence[int]], is_cut: Sequence[bool] | np.ndarray | None = None
    ) -> TitleTokens:
        """Return the titles of these token ids, one list per item_idx from 0 (padding, empty) to I."""
        lengths = [0, *(len(title) for title in tokens)]
        ids = (token for title in tokens for token in title)
        flat = np.fromiter(ids, dtype=np.int32, count=sum(lengths))
        cut = None if is_cut is None else np.array(is_cut, dtype=bool)
        return cls(flat, np.cumsum(lengths, dtype=np.int64), cut)

    def of(self, idx: int) -> list[int]:
        """Return the token ids of item `idx` (none for the padding item 0)."""
        return self.flat[self.offsets[idx] : self.offsets[idx + 1]].tolist()

    def is_whole(self, idx: int) -> bool:
        """Return whether the title ends with its last token here; where that is not known, it does."""
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
    """Token ids with 0 where a soft token goes, the soft tokens' positions, and whose they are.

    `soft_items` holds item_idx, or `USER`.
    """

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
    """Builds prompts and answers of one layout (of `prompt.layout`) for one tokenizer.

    `tokenise(text)` gives plain token ids (no special tokens), `bos_ids` precede every prompt, `eos_id` ends
    an answer where the layout says so. Only the newest `history_items` of a history are used.
    `soft_tokens=False` leaves out user and item tokens, so that the LLM reads text alone; `user_token=False`
    and `item_tokens=False` leave out one kind.
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
        user_token: bool = True,
        item_tokens: bool = True,
    ) -> None:
        self.layout, self.lists_candidates = layout, layout != "no_list"
        self.history_items = history_items
        self._user_token, self._item_tokens = soft_tokens and user_token, soft_tokens and item_tokens
        self.soft_tokens = self._user_token or self._item_tokens
        self._tokenise, self._bos_ids = tokenise, list(bos_ids)
        self._is_quoted = layout in ("paper", "authors")
        self._quote = tokenise('"') if self._is_quoted else []
        self._separator = tokenise({"no_list": ";", "authors": ","}.get(layout, ", "))
        self._before_answer = self._quote if layout == "authors" else []
        self._terminator = [*self._quote, eos_id] if self.lists_candidates else self._separator
        if self.lists_candidates:
            self._tokenise_sentences(DOMAINS[domain])
        else:
            self._together = tokenise(f"{DOMAINS[domain].together}:")

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
            settings.user_token,
            settings.item_tokens,
        )

    def title_text(self, title: str) -> str:
        """Return the one form in which a title is tokenised, in the history, the list and the answer."""
        return title if self.lists_candidates else f" {title}"

    def tokenise_titles(self, titles: Sequence[str], cap: int | None) -> TitleTokens:
        """Tokenise the titles of items 1..I, at most `cap` tokens each (None: all of them).

        Raises InputError where a title has no token.
        """
        rows: list[list[int]] = [[]]
        is_cut = [False]
        for idx, title in enumerate(titles, start=1):
            whole = self._tokenise(self.title_text(title))
            tokens = whole[:cap]
            if not title.strip() or not tokens:
                raise InputError(
                    f"items: the title {title!r} of item_idx {idx} has no token, expected text; "
                    "give it a title"
                )
            rows.append(tokens)
            is_cut.append(len(tokens) < len(whole))
        return TitleTokens.from_lists(rows, is_cut)

    def prompt(self, history_idx: Sequence[int], candidate_idx: Sequence[int], titles: TitleTokens) -> Prompt:
        """Return the prompt for a history (item_idx, oldest first; 0 is skipped).

        The candidates stand in the order in which a layout with a list shows them; `no_list` does not read
        them.
        """
        prompt = self.introduction(history_idx, titles)
        if self.lists_candidates:
            prompt.token_ids += self._recommend
            self._write_list(prompt, candidate_idx, titles)
            prompt.token_ids += self._last
            if self.layout == "token_first":
                self._write_soft_token(prompt, USER)
        return prompt

    def introduction(self, history_idx: Sequence[int], titles: TitleTokens) -> Prompt:
        """Return the beginning of a prompt: what it says of the user, before anything is asked."""
        history = [idx for idx in history_idx if idx > 0][-self.history_items :]
        prompt = Prompt()
        if self.layout == "authors":
            self._write_soft_token(prompt, USER)
        prompt.token_ids += self._bos_ids
        if self.layout == "no_list":
            self._write_together(prompt, history, titles)
            return prompt
        if self.layout == "paper":
            self._write_soft_token(prompt, USER)
        prompt.token_ids += self._is_user
        if history:
            prompt.token_ids += self._has_had
            self._write_list(prompt, history, titles)
            prompt.token_ids += self._before_list
        return prompt

    def answer(self, idx: int, titles: TitleTokens) -> list[int]:
        """Return what is scored for item `idx`: its title's tokens and what the layout puts around them.

        A title that is cut does not end there, so nothing says that it does.
        """
        return self._before_answer + titles.of(idx) + (self._terminator if titles.is_whole(idx) else [])

    def opening(self) -> list[int]:
        """Return the bare opening of `no_list`, after which a title's prior is taken.

        Raises ValueError for a layout that lists the candidates: it has no prior.
        """
        if self.lists_candidates:
            raise ValueError(f"the layout {self.layout} has no prior")
        return self._bos_ids + self._together

    def _tokenise_sentences(self, words: Domain) -> None:
        """Tokenise the sentences of a layout that lists the candidates."""
        noun, tokenise = words.noun, self._tokenise
        blank = "" if self.layout == "authors" else " "
        is_user = f" is a user representation.{blank}"
        self._is_user = tokenise(is_user) if self._is_quoted and self._user_token else []
        self._has_had = tokenise(f"This user has {words.verb_past} ")
        self._before_list = tokenise(" in the previous. ")
        self._recommend = tokenise(
            f"Recommend one next {noun} for this user to {words.verb} next "
            f"from the following {noun} title set, "
        )
        ending = {"paper": ' "', "authors": " ", "token_first": ""}[self.layout]
        self._last = tokenise(f". The recommendation is{ending}")

    def _write_together(self, prompt: Prompt, history: Sequence[int], titles: TitleTokens) -> None:
        prompt.token_ids += self._together
        for idx in history:
            self._write_soft_token(prompt, idx)
            prompt.token_ids += titles.of(idx) + self._separator
        self._write_soft_token(prompt, USER)

    def _write_list(self, prompt: Prompt, items: Sequence[int], titles: TitleTokens) -> None:
        for index, idx in enumerate(items):
            if index:
                prompt.token_ids += self._separator
            if self._is_quoted:
                prompt.token_ids += self._quote + titles.of(idx) + self._quote
                self._write_soft_token(prompt, idx)
            else:
                self._write_soft_token(prompt, idx)
                prompt.token_ids += titles.of(idx)

    def _write_soft_token(self, prompt: Prompt, item: int) -> None:
        if self._user_token if item == USER else self._item_tokens:
            prompt.soft_positions.append(len(prompt.token_ids))
            prompt.soft_items.append(item)
            prompt.token_ids.append(0)

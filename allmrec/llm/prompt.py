"""The prompt as token ids and soft-token positions, in four layouts.

`paper` is the prompt of A-LLMRec (KDD 2024, section 4.2 and figure 3). `authors` is the same as in the
authors' code: the user's token is before BOS, the answer begins with its quote, and a few blanks differ.
`token_first` lists the candidates too, with every soft token before its title. `no_list` has neither
instructions nor a list of candidates.

Text is data: every segment (words of the layout, each title) is tokenised by itself and soft tokens are
placed by position. A title can therefore not move a soft token, close a quote of the layout, or become a
special token.

The authors' code tokenises the whole text, in which soft tokens have markers: its tokenizer cuts the text at
the markers and strips the blank behind them. `prompt.tokenise: whole` therefore tokenises the text between
two soft tokens at once. A title can then share a token with quotes and commas around it; soft tokens keep
their places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from allmrec.config import PromptConfig
from allmrec.errors import InputError
from allmrec.llm.domains import DOMAINS, Domain
from allmrec.llm.tokens import USER, Prompt, TitleTokens


class TokenSource(Protocol):
    """The parts of an LLM that a layout needs."""

    @property
    def bos_ids(self) -> list[int]:
        """The ids before every prompt."""
        ...

    @property
    def eos_id(self) -> int:
        """End-of-sequence."""
        ...

    def tokenise(self, text: str) -> list[int]:
        """Return the ids of plain text."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of the ids of plain text."""
        ...


class PromptLayout:
    """Builds prompts and answers of a layout (`prompt.layout`) for one tokenizer.

    `tokenise(text)` gives plain token ids (no special tokens), `bos_ids` precede every prompt, `eos_id` ends
    an answer if the layout has an end. Only the newest `history_items` of a history are used.
    `soft_tokens=False` drops user and item tokens, so that the LLM reads text alone; `user_token=False` and
    `item_tokens=False` drop one kind. With `text`, the inverse of `tokenise`, the text between two soft
    tokens is tokenised at once; bytes of a title that is truncated within a character then become U+FFFD.
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
        text: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self.layout = layout
        self.lists_candidates = layout != "no_list"
        self.history_items = history_items
        self._user_token = soft_tokens and user_token
        self._item_tokens = soft_tokens and item_tokens
        self.soft_tokens = self._user_token or self._item_tokens
        self._tokenise = tokenise
        self._text = text
        self._bos_ids = list(bos_ids)
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
        """Return the layout of the section `prompt`, in the tokens of `llm`."""
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
            llm.text if settings.tokenise == "whole" else None,
        )

    def title_text(self, title: str) -> str:
        """Return the text of a title in history, list and answer."""
        return title if self.lists_candidates else f" {title}"

    def tokenise_titles(self, titles: Sequence[str], cap: int | None) -> TitleTokens:
        """Tokenise the titles of items 1..I, up to `cap` tokens each.

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

        The candidates are in the order of the list; `no_list` ignores them.
        """
        prompt = self._introduction(history_idx, titles)
        if self.lists_candidates:
            prompt.token_ids += self._recommend
            self._write_list(prompt, candidate_idx, titles)
            prompt.token_ids += self._last
            if self.layout == "token_first":
                self._write_soft_token(prompt, USER)
        return self._tokenised(prompt)

    def introduction(self, history_idx: Sequence[int], titles: TitleTokens) -> Prompt:
        """Return the beginning of a prompt, about the user, before the request."""
        return self._tokenised(self._introduction(history_idx, titles))

    def _introduction(self, history_idx: Sequence[int], titles: TitleTokens) -> Prompt:
        """Return the beginning of `introduction`, every segment tokenised by itself."""
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
        """Return the scored tokens of item `idx`: title and terminator.

        A truncated title gets no terminator.
        """
        title = self._before_answer + titles.of(idx)
        if not titles.is_whole(idx):
            return self._at_once(title)
        if self._text is None:
            return title + self._terminator
        return self._at_once(title + self._quote) + self._terminator[len(self._quote) :]

    def opening(self) -> list[int]:
        """Return the bare opening of `no_list`, which conditions a title's prior.

        Raises ValueError for a layout that lists the candidates, because it has no prior.
        """
        if self.lists_candidates:
            raise ValueError(f"the layout {self.layout} has no prior")
        return self._bos_ids + self._together

    def _tokenise_sentences(self, words: Domain) -> None:
        """Tokenise the sentences of a layout that lists the candidates."""
        noun = words.noun
        tokenise = self._tokenise
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

    def _at_once(self, ids: list[int]) -> list[int]:
        """Return the ids of the same text tokenised at once, or unchanged."""
        return ids if self._text is None else self._tokenise(self._text(ids))

    def _tokenised(self, prompt: Prompt) -> Prompt:
        """Return the prompt with texts between soft tokens tokenised at once."""
        if self._text is None:
            return prompt
        soft = dict(zip(prompt.soft_positions, prompt.soft_items, strict=True))
        first = 1 if soft.get(0) == USER else 0
        kept = sorted({*soft, *range(first, first + len(self._bos_ids))})
        whole = Prompt()
        start = 0
        for position in [*kept, len(prompt.token_ids)]:
            text = self._text(prompt.token_ids[start:position])
            is_behind_item = soft.get(start - 1, USER) != USER
            whole.token_ids += self._tokenise(text.lstrip(" ") if is_behind_item else text)
            if position in soft:
                self._write_soft_token(whole, soft[position])
            else:
                whole.token_ids += prompt.token_ids[position : position + 1]
            start = position + 1
        return whole

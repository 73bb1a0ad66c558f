"""A user's request to the LLM, shortened to its positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import TitleTokens

TITLE_CAPS = (8, 4, 2)
"""Limits of tokens per title, tried in turn, if a prompt exceeds the LLM's positions."""


class RequestBuilder:
    """Builds requests that fit into `max_positions`, by shortening if needed.

    Titles are truncated first, then the oldest history is dropped; a request that is still too long is
    returned. In a layout with a list the answers are truncated as in the list. Without a list they are
    complete, because their priors are.
    """

    def __init__(self, layout: PromptLayout, titles: TitleTokens, max_positions: int) -> None:
        self.layout = layout
        self.titles = titles
        self.max_positions = max_positions

    @cached_property
    def _capped_titles(self) -> list[TitleTokens]:
        return [self.titles.capped(cap) for cap in TITLE_CAPS]

    def build(
        self, history_idx: Sequence[int], candidate_idx: Sequence[int], prompt_order: Sequence[int]
    ) -> Request:
        """Return the request of one user.

        | input | content |
        |---|---|
        | history_idx | item_idx of the history, oldest first |
        | candidate_idx | item_idx of the candidates; the request's answers are in this order |
        | prompt_order | the same candidates in the order of the layout's list |
        """
        request = self._request(history_idx, candidate_idx, prompt_order, self.titles)
        if request.num_positions <= self.max_positions:
            return request
        for titles in self._capped_titles:
            request = self._request(history_idx, candidate_idx, prompt_order, titles)
            if request.num_positions <= self.max_positions:
                return request
        history = list(history_idx)[-self.layout.history_items :]
        while len(history) > 1 and request.num_positions > self.max_positions:
            history = history[1:]
            request = self._request(history, candidate_idx, prompt_order, self._capped_titles[-1])
        return request

    def _request(
        self,
        history_idx: Sequence[int],
        candidate_idx: Sequence[int],
        prompt_order: Sequence[int],
        titles: TitleTokens,
    ) -> Request:
        answer_titles = titles if self.layout.lists_candidates else self.titles
        return Request(
            self.layout.prompt(history_idx, prompt_order, titles),
            [self.layout.answer(idx, answer_titles) for idx in candidate_idx],
        )

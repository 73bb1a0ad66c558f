"""A user's request to the LLM: prompt and answers by the layout, shortened where the LLM's positions end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import TitleTokens

TITLE_CAPS = (8, 4, 2)
"""Tokens that titles are capped to, in turn, where a prompt is too long for the LLM's positions."""


class RequestBuilder:
    """Builds requests that fit into `max_positions` where shortening can make them fit.

    Titles are capped harder first, then the oldest history goes; what is still too long is returned as it is.
    In a layout with a list the answers are capped as they are listed; without a list they are not, so that
    their priors stay theirs.
    """

    def __init__(self, layout: PromptLayout, titles: TitleTokens, max_positions: int) -> None:
        self.layout, self.titles, self.max_positions = layout, titles, max_positions

    @cached_property
    def _capped_titles(self) -> list[TitleTokens]:
        return [self.titles.capped(cap) for cap in TITLE_CAPS]

    def build(
        self, history_idx: Sequence[int], candidate_idx: Sequence[int], prompt_order: Sequence[int]
    ) -> Request:
        """Return the request of one user.

        | input | what |
        |---|---|
        | history_idx | item_idx of the history, oldest first |
        | candidate_idx | item_idx of the candidates; the request's answers are in this order |
        | prompt_order | the same candidates in the order in which a layout with a list shows them |
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

"""Generation: the paper's free greedy decoding, and exact decoding constrained to the candidates' titles.

The constrained search is best-first over the tree of the candidates' tokens. A beginning of a title can at best end with its log-probability so
far (log-probabilities are not positive) plus the best offset (minus the prior) among the titles below it, so the first complete title that
leads the queue is proven best: the one that `rank` puts on top.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from allmrec.errors import ConfigError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import score_requests, with_soft_tokens
from allmrec.llm.packing import Request, pack
from allmrec.llm.prompt import PromptLayout

WIDTH = 4
"""Beginnings of a user looked into at a time: more than one only saves passes, the result is the same."""


@dataclass(frozen=True)
class Leaf:
    """A decoded candidate: its index among the request's answers, and log P(answer | prompt) in nats."""

    candidate: int
    logprob: float


@dataclass(frozen=True)
class Generated:
    """Greedy text, and the index of the candidate whose title it is (None: no candidate's)."""

    text: str
    candidate: int | None


def decode_constrained(
    llm: FrozenLLM,
    requests: Sequence[Request],
    offsets: Sequence[np.ndarray],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    token_budget: int,
) -> tuple[list[Leaf | None], list[str | None]]:
    """Return, per request, the answer with the highest log-probability plus offset, or None and why (as in `score_requests`).

    `offsets[r]` [answers of r] float: what is added to each answer's log-probability (minus its prior, or 0). Soft tokens as in `score_batch`.
    """
    searches = [_Search(request, offset) for request, offset in zip(requests, offsets, strict=True)]
    failures: list[str | None] = [None] * len(requests)
    while asked := [
        index for index, search in enumerate(searches) if failures[index] is None and search.best is None
    ]:
        frontiers = [searches[index].frontier() for index in asked]
        answers = [[[*beginning, token] for beginning in frontier for token in searches[index].following(beginning)]
                   for index, frontier in zip(asked, frontiers, strict=True)]  # fmt: skip
        rows = [Request(requests[index].prompt, own) for index, own in zip(asked, answers, strict=True)]
        users = soft_users[asked] if soft_users is not None else None
        scored = score_requests(llm, rows, soft_items, users, token_budget)
        for index, own, logprobs, failure in zip(
            asked, answers, scored.logprobs, scored.failures, strict=True
        ):
            failures[index] = failure
            if logprobs is not None:
                searches[index].add(own, logprobs)
    return [
        search.best if failure is None else None for search, failure in zip(searches, failures, strict=True)
    ], failures


def generate_greedy(
    llm: FrozenLLM, layout: PromptLayout, request: Request, titles: Sequence[str], soft_items: Tensor | None, soft_users: Tensor | None,
    max_new_tokens: int = 40,
) -> Generated:  # fmt: skip
    """Generate freely after one prompt and match the text against `titles`, those of the candidates in the request's order.

    A title matches when the text, up to the first quote or line break, is that title, or begins with it (case and white space folded; the
    longest such title). Raises ConfigError for a layout that does not list the candidates.
    """
    if not layout.lists_candidates:
        raise ConfigError(
            f"prompt.layout: {layout.layout}, expected token_first or paper: free generation needs the candidates in the prompt"
        )
    [batch, *_] = pack([Request(request.prompt, [[llm.eos_id]])], 1)
    with torch.inference_mode():
        ids = llm.generate(with_soft_tokens(llm, batch, soft_items, soft_users), max_new_tokens)
    text = llm.tokenizer.decode(ids, skip_special_tokens=True)
    said = _folded(text.strip().lstrip('"').split('"')[0].split("\n")[0])
    matching = [
        place for place, title in enumerate(titles) if _folded(title) and said.startswith(_folded(title))
    ]
    return Generated(text, max(matching, key=lambda place: len(_folded(titles[place])), default=None))


class _Search:
    """The queue of one request: beginnings by what they can become at best, and complete answers by what they are."""

    def __init__(self, request: Request, offsets: np.ndarray) -> None:
        self.best: Leaf | None = None
        self._best_below: dict[tuple[int, ...], float] = {}
        self._following: dict[tuple[int, ...], list[int]] = {}
        self._ending: dict[tuple[int, ...], list[int]] = {}
        self._offsets = offsets
        for candidate, answer in enumerate(request.answers):
            self._ending.setdefault(tuple(answer), []).append(candidate)
            for length in range(len(answer)):
                beginning = tuple(answer[:length])
                self._best_below[beginning] = max(
                    self._best_below.get(beginning, -np.inf), float(offsets[candidate])
                )
                following = self._following.setdefault(beginning, [])
                if answer[length] not in following:
                    following.append(answer[length])
        # (−bound, candidate or −1, beginning, log-probability)
        self._queue: list[tuple[float, int, tuple[int, ...], float]] = [(-self._best_below[()], -1, (), 0.0)]

    def following(self, beginning: tuple[int, ...]) -> list[int]:
        """Return the tokens that can follow a beginning."""
        return self._following[beginning]

    def frontier(self) -> list[tuple[int, ...]]:
        """Take the most promising beginnings off the queue, at least one."""
        taken: list[tuple[int, ...]] = []
        while self._queue and len(taken) < WIDTH and self._queue[0][1] < 0:
            taken.append(heapq.heappop(self._queue)[2])
        return taken

    def add(self, answers: list[list[int]], logprobs: np.ndarray) -> None:
        """Put beginnings with their log-probabilities into the queue, complete answers as such; settle `best` once it is proven."""
        for answer, logprob in zip(answers, logprobs.tolist(), strict=True):
            place = tuple(answer)
            for candidate in self._ending.get(place, []):
                heapq.heappush(
                    self._queue, (-(logprob + float(self._offsets[candidate])), candidate, place, logprob)
                )
            if place in self._best_below:
                heapq.heappush(self._queue, (-(logprob + self._best_below[place]), -1, place, logprob))
        _, candidate, _, logprob = self._queue[0]
        if candidate >= 0:
            self.best = Leaf(candidate, logprob)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())

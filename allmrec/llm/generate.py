"""Generation: free greedy decoding, and exact decoding of a candidate's title.

The constrained search is best-first over the tree of the candidates' tokens. Log-probabilities are at most 0,
so that a beginning of a title ends at best with its own log-probability plus the best offset (minus the
prior) among its titles. The first complete title at the head of the queue is therefore the best: the first of
`scoring.mode: rank`.
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
from allmrec.llm.matching import Rule, matching_titles
from allmrec.llm.multi_item import OUT_OF_MEMORY, PROMPT_TOO_LONG, score_requests, with_soft_tokens
from allmrec.llm.on_device import on_device
from allmrec.llm.packing import Request, pack
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import Prompt

NO_CANDIDATE = "no_candidate"
"""Failure: the LLM's text is no candidate's title."""
MORE_TOKENS = 8
"""How many tokens a free text may be longer than the longest answer."""
AUTHORS_TOKENS = 512
"""Length of the text that the authors' evaluation searches for the title."""
BEGINNINGS_PER_PASS = 4
"""Beginnings of a user that are expanded at a time.

More than one saves passes and leaves the result unchanged.
"""


@dataclass(frozen=True)
class Leaf:
    """A decoded candidate: index among the answers, and log P (nats)."""

    candidate: int
    logprob: float


@dataclass(frozen=True)
class Generated:
    """Greedy text, and the indices of candidates whose titles match, longest first."""

    text: str
    candidates: list[int]


def decode_constrained(
    llm: FrozenLLM,
    requests: Sequence[Request],
    offsets: Sequence[np.ndarray],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    token_budget: int,
) -> tuple[list[Leaf | None], list[str | None]]:
    """Return each request's answer with the highest sum of log-probability and offset.

    A failed request has None and its failure.

    | input | shape |
    |---|---|
    | offsets | one [number of answers] float array per request, added to the log-probabilities |
    | soft_items, soft_users | [I+1, H] and [number of requests, H], as in `score_batch` |

    Failures are those of `score_requests`.
    """
    searches = [_Search(request, offset) for request, offset in zip(requests, offsets, strict=True)]
    failures: list[str | None] = [None] * len(requests)
    while asked := [
        index for index, search in enumerate(searches) if failures[index] is None and search.best is None
    ]:
        beginnings = [searches[index].next_beginnings() for index in asked]
        prompts = [requests[index].prompt for index in asked]
        partial_requests = [Request(*pair) for pair in zip(prompts, beginnings, strict=True)]
        users = soft_users[asked] if soft_users is not None else None
        scored = score_requests(llm, partial_requests, soft_items, users, token_budget)
        for row, index in enumerate(asked):
            failures[index] = scored.failures[row]
            logprobs = scored.logprobs[row]
            if logprobs is not None:
                searches[index].add(beginnings[row], logprobs)
    leaves = [
        search.best if failure is None else None for search, failure in zip(searches, failures, strict=True)
    ]
    return leaves, failures


def generate_greedy(
    llm: FrozenLLM,
    layout: PromptLayout,
    request: Request,
    titles: Sequence[str],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    max_new_tokens: int = 40,
    repetition_penalty: float = 1.0,
    match: Rule = "begins",
) -> Generated:
    """Generate freely after one prompt and match the candidates' titles.

    A-LLMRec (KDD 2024) recommends in this way (section 4.3) and is measured by it (section 5): the LLM writes
    a title, and the recommendation counts if it is the true item's. `titles` are those of the candidates in
    the request's order. Soft tokens are [I+1, H] and [1, H], as in `score_batch`.

    Raises ConfigError for a layout that does not list the candidates.
    """
    if not layout.lists_candidates:
        raise ConfigError(
            f"prompt.layout: {layout.layout}, expected token_first, paper or authors: free generation needs "
            "the candidates in the prompt"
        )
    text = written(llm, request.prompt, soft_items, soft_users, max_new_tokens, repetition_penalty)
    return Generated(text, matching_titles(text, titles, match))


def _as_shown(llm: FrozenLLM, request: Request, titles: Sequence[str]) -> list[str]:
    """Return the titles as the prompt shows them. An answer without an end is truncated."""
    return [
        title if answer[-1] == llm.eos_id else llm.text(answer).removeprefix('"').rstrip("\ufffd")
        for title, answer in zip(titles, request.answers, strict=True)
    ]


@torch.inference_mode()
def written(
    llm: FrozenLLM,
    prompt: Prompt,
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    max_new_tokens: int,
    repetition_penalty: float = 1.0,
) -> str:
    """Return the LLM's greedy text after a prompt. Soft tokens as in `generate_greedy`."""
    [batch, *_] = pack([Request(prompt, [[llm.eos_id]])], 1)
    embeddings = with_soft_tokens(llm, batch, on_device(batch, llm.device), soft_items, soft_users)
    ids = llm.generate(embeddings, max_new_tokens, repetition_penalty)
    return str(llm.tokenizer.decode(ids, skip_special_tokens=True))


def decode_free(
    llm: FrozenLLM,
    layout: PromptLayout,
    requests: Sequence[Request],
    titles: Sequence[Sequence[str]],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    token_budget: int,
    repetition_penalty: float = 1.0,
    match: Rule = "begins",
) -> tuple[list[list[Leaf]], list[str | None]]:
    """Return the candidates whose titles match the LLM's free text, per prompt.

    `titles` are those of each request's candidates, in the order of its answers. If none matches, the titles
    are tried as the prompt shows them, truncated. Soft tokens are as in `decode_constrained`. The text may be
    some tokens longer than the longest answer, because a title can be written in other tokens. With
    `contains` it may be as long as the authors'. Failures are those of `score_requests`, and `no_candidate`.
    """
    failures: list[str | None] = [None] * len(requests)
    chosen: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        user = soft_users[index : index + 1] if soft_users is not None else None
        needed = max(map(len, request.answers)) + MORE_TOKENS
        room = llm.max_positions - len(request.prompt.token_ids)
        if needed > room:
            failures[index] = PROMPT_TOO_LONG
            continue
        length = needed if match == "begins" else min(max(needed, AUTHORS_TOKENS), room)
        try:
            generated = generate_greedy(
                llm, layout, request, titles[index], soft_items, user, length, repetition_penalty, match
            )
        except torch.cuda.OutOfMemoryError:
            failures[index] = OUT_OF_MEMORY
            continue
        found = generated.candidates or matching_titles(
            generated.text, _as_shown(llm, request, titles[index]), match
        )
        if found:
            chosen[index] = found
        else:
            failures[index] = NO_CANDIDATE
    rows = list(chosen)
    matched = [
        Request(requests[row].prompt, [requests[row].answers[candidate] for candidate in chosen[row]])
        for row in rows
    ]
    users = soft_users[rows] if soft_users is not None else None
    scored = score_requests(llm, matched, soft_items, users, token_budget)
    leaves: list[list[Leaf]] = [[] for _ in requests]
    for row, logprobs, failure in zip(rows, scored.logprobs, scored.failures, strict=True):
        failures[row] = failure
        if logprobs is not None:
            leaves[row] = [Leaf(*pair) for pair in zip(chosen[row], logprobs.tolist(), strict=True)]
    return leaves, failures


class _Search:
    """The queue of one request: beginnings by bound, answers by score."""

    def __init__(self, request: Request, offsets: np.ndarray) -> None:
        """Put the empty beginning into the queue.

        `offsets` [number of answers] float are added to the log-probabilities.
        """
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

    def next_beginnings(self) -> list[list[int]]:
        """Take the most promising beginnings off the queue; return their continuations."""
        taken: list[tuple[int, ...]] = []
        while self._queue and len(taken) < BEGINNINGS_PER_PASS and self._queue[0][1] < 0:
            taken.append(heapq.heappop(self._queue)[2])
        return [[*beginning, token] for beginning in taken for token in self._following[beginning]]

    def add(self, beginnings: list[list[int]], logprobs: np.ndarray) -> None:
        """Put beginnings with their log-probabilities [number of beginnings] into the queue.

        Sets `best` once it is proven.
        """
        for tokens, logprob in zip(beginnings, logprobs.tolist(), strict=True):
            beginning = tuple(tokens)
            for candidate in self._ending.get(beginning, []):
                bound = logprob + float(self._offsets[candidate])
                heapq.heappush(self._queue, (-bound, candidate, beginning, logprob))
            if beginning in self._best_below:
                bound = logprob + self._best_below[beginning]
                heapq.heappush(self._queue, (-bound, -1, beginning, logprob))
        _, candidate, _, logprob = self._queue[0]
        if candidate >= 0:
            self.best = Leaf(candidate, logprob)

"""Multi-item scoring: log P(answer | prompt) of many answers in one pass.

`score_batch` is differentiable in the soft tokens (stage 2). `score_requests` scores without gradients, with
packing, memory and failures. Shape letters beside the usual ones are those of `packing.PackedBatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from allmrec.errors import SetupError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.on_device import on_device, seen
from allmrec.llm.packing import PackedBatch, Request, Row, group_rows, pack_rows, request_rows
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import USER, Prompt, TitleTokens
from allmrec.reporting import Report

LOGITS_ON_CPU = 1 << 22
LOGITS_ON_GPU = 1 << 25
"""Logits (float32) held at a time: 16 MiB fit into a CPU's cache, 128 MiB keep a GPU busy."""
PROMPT_TOO_LONG = "prompt_too_long"
OUT_OF_MEMORY = "out_of_memory"
NON_FINITE = "non_finite_score"
OUT_OF_MEMORY_WORDS = ("out of memory", "not enough memory", "allocate memory")


@dataclass(frozen=True)
class Scored:
    """The result of every request, by its index."""

    logprobs: list[np.ndarray | None]
    """Log-probabilities of the request's answers in nats, float32 [number of answers]. None if it failed."""
    failures: list[str | None]
    """The failure of a request (`PROMPT_TOO_LONG`, `OUT_OF_MEMORY`, `NON_FINITE`), or None."""


def score_batch(
    llm: FrozenLLM, batch: PackedBatch[np.ndarray], soft_items: Tensor | None, soft_users: Tensor | None
) -> Tensor:
    """Return the log-probability of every answer in nats, [A] float32.

    The result is differentiable in the soft tokens.

    | input | shape |
    |---|---|
    | soft_items | [I+1, H] float, row item_idx; None if no prompt has an item's token |
    | soft_users | [number of requests, H] float; None if no prompt has the user's token |

    Raises ValueError where soft tokens of a prompt are missing.
    """
    sent = on_device(batch, llm.device)
    is_seen_B1TT = seen(sent.ends)[:, None]
    mask_B1TT = torch.zeros(is_seen_B1TT.shape, dtype=llm.dtype, device=llm.device)
    mask_B1TT.masked_fill_(~is_seen_B1TT, torch.finfo(llm.dtype).min)
    embeddings_BTH = with_soft_tokens(llm, batch, sent, soft_items, soft_users)
    hidden_BTH = llm.hidden(embeddings_BTH, mask_B1TT, sent.positions)
    edges_E = _edge_logprobs(llm, hidden_BTH[sent.source_rows, sent.source_columns], batch, sent)
    return torch.cat([edges_E, edges_E.new_zeros(1)])[sent.answer_edges].sum(dim=1)


def score_requests(
    llm: FrozenLLM,
    requests: Sequence[Request],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    token_budget: int,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Score every answer of every request without gradients.

    A pass has at most `token_budget` tokens, padding included. On a CPU every request has passes of its own,
    so that its scores depend on no other request. Soft tokens are those of `score_batch`. A pass that runs
    out of memory is split and retried. A request fails with `out_of_memory` if a single row does not fit,
    with `prompt_too_long` if it needs more positions than the LLM has, with `non_finite_score` if a score is
    no number. `progress` is called with the number of answers scored so far.
    """
    failures: list[str | None] = [
        PROMPT_TOO_LONG if request.num_positions > llm.max_positions else None for request in requests
    ]
    logprobs = [np.full(len(request.answers), np.nan, dtype=np.float32) for request in requests]
    rows = [
        row
        for index, request in enumerate(requests)
        if failures[index] is None
        for row in request_rows(index, request)
    ]
    num_scored = 0

    def collect(batch: PackedBatch[np.ndarray], scores_A: Tensor) -> None:
        nonlocal num_scored
        for request, answer, score in zip(
            batch.answer_requests, batch.answer_indices, scores_A.cpu().numpy(), strict=True
        ):
            logprobs[request][answer] = score
        num_scored += len(batch.answer_requests)
        if progress:
            progress(num_scored)

    def fail(row: Row) -> None:
        failures[row.request] = OUT_OF_MEMORY

    with torch.inference_mode():
        _score_groups(llm, _groups(llm, rows, token_budget), soft_items, soft_users, collect, fail)
    for index, scores in enumerate(logprobs):
        if failures[index] is None and not np.isfinite(scores).all():
            failures[index] = NON_FINITE
    return Scored(
        [None if failure else scores for scores, failure in zip(logprobs, failures, strict=True)], failures
    )


def item_priors(
    llm: FrozenLLM,
    layout: PromptLayout,
    titles: TitleTokens,
    idxs: Sequence[int] | None,
    token_budget: int,
    report: Report | None = None,
) -> np.ndarray:
    """Return log P(answer | bare opening) in nats of `idxs`: float32 [len(idxs)].

    `idxs` are items, None: 0..I. The padding item 0 has prior 0. All titles are one request, whose tree is
    the titles' beginnings.

    Raises SetupError where the LLM cannot score them (memory, a score that is no number), and ValueError for
    a layout that lists the candidates.
    """
    idxs = range(titles.num_items + 1) if idxs is None else idxs
    priors = np.zeros(len(idxs), dtype=np.float32)
    is_item = np.asarray(idxs, dtype=np.int64) > 0
    if not is_item.any():
        return priors
    answers = [layout.answer(idx, titles) for idx in idxs if idx > 0]
    with (report or Report()).progress("priors", len(answers), "titles") as progress:
        progress.update(0)
        request = Request(Prompt(layout.opening()), answers)
        scored = score_requests(llm, [request], None, None, token_budget, progress.update)
    if scored.logprobs[0] is None:
        raise SetupError(
            f"llm.model: titles cannot be scored by {llm.name} ({scored.failures[0]}); "
            "lower llm.token_budget, or set llm.dtype=float32"
        )
    priors[is_item] = scored.logprobs[0]
    return priors


def with_soft_tokens(
    llm: FrozenLLM,
    batch: PackedBatch[np.ndarray],
    sent: PackedBatch[Tensor],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
) -> Tensor:
    """Return a batch's input embeddings [B, T, H] with soft tokens.

    `sent` is the batch on the LLM's device. Soft tokens as in `score_batch`. Raises ValueError where soft
    tokens of a prompt are missing.
    """
    embeddings = llm.token_embeddings(sent.token_ids)
    num_users = int((batch.soft_items == USER).sum())
    num_soft = len(batch.soft_items)
    for vectors, vector_rows, start, end in (
        (soft_users, sent.soft_requests, 0, num_users),
        (soft_items, sent.soft_items, num_users, num_soft),
    ):
        if start < end:
            if vectors is None:
                raise ValueError("the prompt has soft tokens, but none were given")
            values = vectors[vector_rows[start:end].to(vectors.device)]
            cells = (sent.soft_rows[start:end], sent.soft_columns[start:end])
            embeddings = embeddings.index_put(
                cells, values.to(device=embeddings.device, dtype=embeddings.dtype)
            )
    return embeddings


def _groups(llm: FrozenLLM, rows: list[Row], token_budget: int) -> list[list[Row]]:
    """Return the rows of every pass. `rows` are in the order of their requests.

    A GPU needs many requests a pass. A CPU is as fast with one (tests/bench/README.md).
    """
    if llm.device.type != "cpu":
        return group_rows(rows, token_budget)
    by_request = groupby(rows, key=lambda row: row.request)
    return [group for _, own in by_request for group in group_rows(list(own), token_budget)]


def _score_groups(
    llm: FrozenLLM,
    groups: list[list[Row]],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    collect: Callable[[PackedBatch[np.ndarray], Tensor], None],
    fail: Callable[[Row], None],
) -> None:
    """Score one group of rows per pass.

    `collect` gets each batch with its scores [A], `fail` each row that failed.

    Results are collected one pass late, so that a GPU computes one group while the next is packed.
    """
    pending = groups[::-1]
    computing: tuple[PackedBatch[np.ndarray], Tensor] | None = None
    while pending:
        rows = pending.pop()
        batch = pack_rows(rows)
        scores_A = _scores_or_none(llm, batch, soft_items, soft_users)
        if computing:
            collect(*computing)
        computing = (batch, scores_A) if scores_A is not None else None
        if scores_A is None and len(rows) > 1:
            pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
        elif scores_A is None:
            fail(rows[0])
    if computing:
        collect(*computing)


def _scores_or_none(
    llm: FrozenLLM, batch: PackedBatch[np.ndarray], soft_items: Tensor | None, soft_users: Tensor | None
) -> Tensor | None:
    """Return the scores [A] of `score_batch`, or None without memory."""
    try:
        return score_batch(llm, batch, soft_items, soft_users)
    except RuntimeError as error:  # of torch.OutOfMemoryError, or of the CPU's allocator
        if not isinstance(error, torch.OutOfMemoryError) and not any(
            words in str(error).lower() for words in OUT_OF_MEMORY_WORDS
        ):
            raise
    if llm.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _edge_logprobs(
    llm: FrozenLLM, sources_MH: Tensor, batch: PackedBatch[np.ndarray], sent: PackedBatch[Tensor]
) -> Tensor:
    """Return log P(token | source) of every edge, [E] float32.

    `sent` is the batch on the LLM's device. Logits are computed and dropped slice by slice.
    """
    num_logits = LOGITS_ON_CPU if llm.device.type == "cpu" else LOGITS_ON_GPU
    num_rows = max(1, num_logits // llm.vocab_size)
    parts = []
    for start in range(0, len(sources_MH), num_rows):
        first, last = np.searchsorted(batch.edge_sources, [start, start + num_rows])
        rows_E = sent.edge_sources[first:last] - start
        tokens_E = sent.edge_tokens[first:last]

        def slice_logprobs(hidden_NH: Tensor, rows_E: Tensor = rows_E, tokens_E: Tensor = tokens_E) -> Tensor:
            logits_NV = llm.logits(hidden_NH)
            return logits_NV[rows_E, tokens_E] - torch.logsumexp(logits_NV, dim=1)[rows_E]

        part_NH = sources_MH[start : start + num_rows]
        # With gradients, a slice's logits are computed again in the backward pass to save memory.
        parts.append(
            checkpoint(slice_logprobs, part_NH, use_reentrant=False)
            if torch.is_grad_enabled()
            else slice_logprobs(part_NH)
        )
    return torch.cat(parts)

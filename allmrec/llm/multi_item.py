"""Multi-item scoring: log P(answer | prompt) of many answers of many prompts in one pass of the frozen LLM (method §5).

`score_batch` is differentiable in the soft tokens (stage 2); `score_requests` is the whole job without gradients: packing, memory, failures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from allmrec.errors import SetupError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.packing import PackedBatch, Request, Row, groups, packed, rows_of
from allmrec.llm.prompt import USER, Prompt, PromptLayout, TitleTokens

LOGIT_ELEMENTS = 1 << 25
"""Logits (float32) held at a time: 128 MiB."""
PROMPT_TOO_LONG, OUT_OF_MEMORY, NON_FINITE = "prompt_too_long", "out_of_memory", "non_finite_score"
OUT_OF_MEMORY_WORDS = ("out of memory", "not enough memory", "allocate memory")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Scored:
    """Per request: log-probabilities of its answers in nats (float32 [number of answers]), or None and why."""

    logprobs: list[np.ndarray | None]
    failures: list[str | None]


def score_batch(
    llm: FrozenLLM, batch: PackedBatch, soft_items: Tensor | None, soft_users: Tensor | None
) -> Tensor:
    """Return the log-probability in nats of every answer of `batch`: [S] float32, differentiable in the soft tokens.

    | input | shape |
    |---|---|
    | soft_items | [I+1, H] float, row item_idx; None where no prompt has an item's token |
    | soft_users | [number of requests, H] float; None where no prompt has the user's token |
    """
    device = llm.device
    mask = torch.zeros(batch.allowed.shape, dtype=llm.dtype, device=device)
    mask.masked_fill_(~torch.from_numpy(batch.allowed).to(device), torch.finfo(llm.dtype).min)
    embeddings = with_soft_tokens(llm, batch, soft_items, soft_users)
    hidden = llm.hidden(embeddings, mask[:, None], torch.from_numpy(batch.positions).to(device))
    sources = hidden[
        torch.from_numpy(batch.source_rows).to(device), torch.from_numpy(batch.source_columns).to(device)
    ]
    edges = _edge_logprobs(llm, sources, batch)
    padded = torch.cat([edges, edges.new_zeros(1)])
    return padded[torch.from_numpy(batch.answer_edges).to(device)].sum(dim=1)


def score_requests(
    llm: FrozenLLM,
    requests: Sequence[Request],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    token_budget: int,
    report: Report | None = None,
) -> Scored:
    """Score every answer of every request, at most `token_budget` tokens (padding included) a pass; no gradients.

    Soft tokens as in `score_batch`. A pass that runs out of memory is split and tried again; a row that does so alone fails its request with
    `out_of_memory`, a request that needs more positions than the LLM has with `prompt_too_long`, a score that is no number with
    `non_finite_score`. `report(line)` hears of rows done.
    """
    failures: list[str | None] = [
        PROMPT_TOO_LONG if request.num_positions > llm.max_positions else None for request in requests
    ]
    logprobs = [np.full(len(request.answers), np.nan, dtype=np.float32) for request in requests]
    rows = [
        row
        for index, request in enumerate(requests)
        if failures[index] is None
        for row in rows_of(index, request)
    ]
    done = 0

    def collect(batch: PackedBatch, scores: Tensor) -> None:
        nonlocal done
        for request, answer, score in zip(
            batch.answer_requests, batch.answer_indices, scores.cpu().numpy(), strict=True
        ):
            logprobs[request][answer] = score
        done += len(batch.token_ids)
        if report:
            report(f"{done}/{len(rows)} rows")

    def fail(row: Row) -> None:
        failures[row.request] = OUT_OF_MEMORY

    with torch.inference_mode():
        _run(llm, groups(rows, token_budget), soft_items, soft_users, collect, fail)
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
    """Return log P(answer | bare opening) in nats of the items `idxs`, float32 [len(idxs)]; None: of all, [I+1], 0 for the padding item.

    It is one request whose tree is the titles' beginnings.

    Raises SetupError where the LLM cannot score them (memory, a score that is no number).
    """
    if idxs is None:
        priors = item_priors(llm, layout, titles, range(1, titles.num_items + 1), token_budget, report)
        return np.concatenate([np.zeros(1, dtype=np.float32), priors])
    if not len(idxs):
        return np.zeros(0, dtype=np.float32)
    scored = score_requests(
        llm,
        [Request(Prompt(layout.opening()), [layout.answer(idx, titles) for idx in idxs])],
        None,
        None,
        token_budget,
        report,
    )
    if scored.logprobs[0] is None:
        raise SetupError(
            f"llm.model: titles cannot be scored by {llm.name} ({scored.failures[0]}); lower scoring.token_budget, or set llm.dtype=float32"
        )
    return scored.logprobs[0]


def _run(
    llm: FrozenLLM,
    pending: list[list[Row]],
    soft_items: Tensor | None,
    soft_users: Tensor | None,
    collect: Callable[[PackedBatch, Tensor], None],
    fail: Callable[[Row], None],
) -> None:
    """Score the groups of rows one after another. A GPU computes one while the next is packed: results are collected one pass late."""
    pending = pending[::-1]
    computing: tuple[PackedBatch, Tensor] | None = None
    while pending:
        rows = pending.pop()
        batch = packed(rows)
        scores = _scores_or_none(llm, batch, soft_items, soft_users)
        if computing:
            collect(*computing)
        computing = (batch, scores) if scores is not None else None
        if scores is None and len(rows) > 1:
            pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
        elif scores is None:
            fail(rows[0])
    if computing:
        collect(*computing)


def _scores_or_none(
    llm: FrozenLLM, batch: PackedBatch, soft_items: Tensor | None, soft_users: Tensor | None
) -> Tensor | None:
    """Return the scores, or None where the memory does not suffice."""
    try:
        return score_batch(llm, batch, soft_items, soft_users)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises a bare one
        if not isinstance(error, torch.OutOfMemoryError) and not any(
            words in str(error).lower() for words in OUT_OF_MEMORY_WORDS
        ):
            raise
    if llm.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def with_soft_tokens(
    llm: FrozenLLM, batch: PackedBatch, soft_items: Tensor | None, soft_users: Tensor | None
) -> Tensor:
    """Return the input embeddings [B, T, H] of a batch with its soft tokens in place."""
    device = llm.device
    embeddings = llm.token_embeddings(torch.from_numpy(batch.token_ids).to(device))
    is_user = batch.soft_items == USER
    for chosen, vectors, whose in (
        (is_user, soft_users, batch.soft_requests),
        (~is_user, soft_items, batch.soft_items),
    ):
        if chosen.any():
            if vectors is None:
                raise ValueError("the prompt has soft tokens, but none were given")
            values = vectors[torch.from_numpy(whose[chosen]).to(vectors.device)].to(
                device=device, dtype=embeddings.dtype
            )
            where = (
                torch.from_numpy(batch.soft_rows[chosen]).to(device),
                torch.from_numpy(batch.soft_columns[chosen]).to(device),
            )
            embeddings = embeddings.index_put(where, values)
    return embeddings


def _edge_logprobs(llm: FrozenLLM, sources_MH: Tensor, batch: PackedBatch) -> Tensor:
    """Return log P(token | source) of every edge, [E] float32; logits are computed and dropped slice by slice."""
    step = max(1, LOGIT_ELEMENTS // llm.vocab_size)
    parts = []
    for start in range(0, len(sources_MH), step):
        first, last = np.searchsorted(batch.edge_sources, [start, start + step])
        own = torch.from_numpy(batch.edge_sources[first:last] - start).to(llm.device)
        tokens = torch.from_numpy(batch.edge_tokens[first:last]).to(llm.device)

        def slice_logprobs(hidden_NH: Tensor, own: Tensor = own, tokens: Tensor = tokens) -> Tensor:
            logits = llm.logits(hidden_NH)
            return logits[own, tokens] - torch.logsumexp(logits, dim=1)[own]

        part = sources_MH[start : start + step]
        # With gradients a slice's logits are computed again in the backward pass instead of being kept.
        parts.append(
            checkpoint(slice_logprobs, part, use_reentrant=False)
            if torch.is_grad_enabled()
            else slice_logprobs(part)
        )
    return torch.cat(parts)

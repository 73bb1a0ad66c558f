"""The warm start of stage 2 (ours, method §10): user and item tokens matched by cosine, a minute without the LLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from allmrec import metrics, seeds
from allmrec.config import Config
from allmrec.models.a_llmrec import ALLMRec
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.loop import Evaluation, History, fit
from allmrec.training.stage2.examples import Examples

NUM_NEGATIVES = 256
"""Uniform negatives shared by a batch. The other users' targets are none: as negatives they would punish popular items."""
JUDGED_CANDIDATES = 100
EVALUATE_EVERY = 25
PATIENCE = 6


def warm_start(
    rec: ALLMRec,
    inputs: Tensor,
    train: Examples,
    judged: Examples,
    config: Config,
    work: Path,
    fingerprint: str,
    report: Callable[[str], None],
) -> History:
    """Train `rec.projection` so that O_u is nearest to the held-back item's O_i; the best weights on `judged` are kept.

    Loss: softmax cross-entropy of cos(O_u, O_i) / temperature over the target and sampled items, a user's own items left out.
    """
    settings = config.stage2
    judge = judge_by_cosine(rec, inputs, judged, config.seed)
    return fit(
        "stage2",
        {"projection": rec.projection},
        torch.optim.AdamW(
            rec.projection.parameters(), lr=settings.warm_start_learning_rate, weight_decay=0.01
        ),
        lambda epoch: _batches(len(train), settings.warm_start_batch, config.seed, epoch),
        lambda rows: cosine_loss(rec, inputs, train, rows),
        total_steps=settings.warm_start_steps,
        seed=config.seed,
        checkpointer=Checkpointer(work / "warm_start", config.training.checkpoint_every, fingerprint),
        report=lambda line: report(line.replace("stage2:", "stage2 warm start:", 1)),
        evaluation=Evaluation(judge, "loss", EVALUATE_EVERY, PATIENCE, higher_is_better=False)
        if len(judged)
        else None,
        clip_norm=1.0,
    )


def tokens_of(
    rec: ALLMRec, inputs: Tensor, examples: Examples, rows: Tensor, more_items: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (items, tokens, users): the distinct items of the rows' histories and `more_items`, sorted and 0 first, their soft tokens, and O_u."""
    histories = examples.histories[rows]
    items, places = torch.unique(
        torch.cat([torch.zeros_like(histories[:1, 0]), histories.flatten(), more_items.flatten()]),
        return_inverse=True,
    )
    tokens = rec.soft_items(items, inputs)
    users = rec.user_tokens(
        examples.x[rows], examples.known[rows], places[1 : 1 + histories.numel()].view_as(histories), tokens
    )
    return items, tokens, users


def cosine_loss(rec: ALLMRec, inputs: Tensor, examples: Examples, rows: Tensor) -> Tensor:
    """Softmax cross-entropy of each row's target among itself and NUM_NEGATIVES uniform items; scalar."""
    targets = examples.targets[rows]
    negatives = torch.randint(1, len(inputs), (NUM_NEGATIVES,)).to(targets.device)
    items, tokens, users = tokens_of(rec, inputs, examples, rows, torch.cat([targets, negatives]))
    users, tokens = nn.functional.normalize(users, dim=1), nn.functional.normalize(tokens, dim=1)
    temperature = rec.projection.log_temperature_cosine.exp()
    positive_B1 = (users * tokens[torch.searchsorted(items, targets)]).sum(dim=1, keepdim=True) / temperature
    had_BN = (examples.histories[rows][:, None, :] == negatives[None, :, None]).any(dim=2) | (
        targets[:, None] == negatives
    )
    negative_BN = (users @ tokens[torch.searchsorted(items, negatives)].T / temperature).masked_fill(
        had_BN, float("-inf")
    )
    logits = torch.cat([positive_B1, negative_BN], dim=1)
    return nn.functional.cross_entropy(logits, torch.zeros_like(targets))


def judge_by_cosine(
    rec: ALLMRec, inputs: Tensor, judged: Examples, seed: int
) -> Callable[[], dict[str, float]]:
    """Return a function that measures loss, Hit@1 and NDCG@10 of the targets by cosine among up to 99 sampled items."""
    num_items = len(inputs) - 1
    size = min(JUDGED_CANDIDATES, max(num_items // 2, 2))
    lists = [judged.candidates(row, size, num_items, seed, -1) for row in range(len(judged))]
    padded = np.zeros((len(lists), max(map(len, lists), default=1)), dtype=np.int64)
    for row, own in enumerate(lists):
        padded[row, : len(own)] = own
    candidates = torch.from_numpy(padded).to(inputs.device)

    def measure() -> dict[str, float]:
        items, tokens, users = tokens_of(
            rec, inputs, judged, torch.arange(len(judged), device=inputs.device), candidates
        )
        found = torch.einsum(
            "bh,bch->bc",
            nn.functional.normalize(users, dim=1),
            nn.functional.normalize(tokens, dim=1)[torch.searchsorted(items, candidates)],
        )
        scores = found.masked_fill(candidates == 0, float("-inf"))
        places = (candidates == judged.targets[:, None]).int().argmax(dim=1)
        loss = nn.functional.cross_entropy(scores / rec.projection.log_temperature_cosine.exp(), places)
        every = metrics.figures(metrics.ranks_of_target(scores.cpu().numpy(), places.cpu().numpy()))
        return {"loss": float(loss), "Hit@1": every["Hit@1"], "NDCG@10": every["NDCG@10"]}

    return measure


def _batches(number: int, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    order = torch.from_numpy(seeds.generator(seed, "stage2", "warm start", epoch).permutation(number))
    yield from order.split(size)

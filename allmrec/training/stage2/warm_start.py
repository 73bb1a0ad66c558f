"""The warm start of stage 2: user and item tokens are matched by cosine, without the LLM.

It takes about a minute and is not in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from allmrec import metrics, seeds
from allmrec.config import Config
from allmrec.models.a_llmrec import ALLMRec
from allmrec.reporting import Report
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.loop import Evaluation, History, Training, fit
from allmrec.training.stage2.soft_tokens import batch_tokens
from allmrec.training.stage2.training_examples import Examples

NUM_NEGATIVES = 256
"""Uniform negatives, shared by a batch. Other users' targets are none: that would punish popular items."""
NUM_EVALUATION_CANDIDATES = 100
EVALUATE_EVERY = 25
"""Steps between two evaluations."""
PATIENCE = 6
"""Evaluations without a lower loss before the warm start stops."""
WEIGHT_DECAY = 0.01
BATCH_USERS = 128
"""Users per step. All figures of tests/bench are of this size."""
LEARNING_RATE = 3e-4
"""AdamW's learning rate. All figures of tests/bench are with this one."""


def warm_start(
    rec: ALLMRec,
    item_inputs_IK: Tensor,
    train: Examples,
    early_stopping: Examples,
    config: Config,
    checkpointer: Checkpointer,
    report: Report,
) -> History:
    """Train `rec.projection` in place so that O_u is nearest to the held-back item's O_i; return the history.

    `item_inputs_IK` [I+1, K] float are `rec.item_inputs()`. The weights that are best for the users of
    `early_stopping` are restored.
    """
    settings = config.stage2
    projection = rec.projection
    evaluation = Evaluation(
        cosine_measure(rec, item_inputs_IK, early_stopping, config.seed),
        "loss",
        EVALUATE_EVERY,
        PATIENCE,
        higher_is_better=False,
    )
    training = Training(
        "stage2",
        {"projection": projection},
        torch.optim.AdamW(projection.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        lambda epoch: _batches(len(train), BATCH_USERS, config.seed, epoch),
        lambda rows_B: cosine_loss(rec, item_inputs_IK, train, rows_B),
        total_steps=settings.warm_start_steps,
        seed=config.seed,
        evaluation=evaluation if len(early_stopping) else None,
        clip_norm=1.0,
        label="stage2 warm start",
    )
    return fit(training, checkpointer, report)


def cosine_loss(rec: ALLMRec, item_inputs_IK: Tensor, examples: Examples, rows_B: Tensor) -> Tensor:
    """Return the softmax cross-entropy of the target among itself and NUM_NEGATIVES uniform items, a scalar.

    The logits are cos(O_u, O_i) / temperature. A negative that is in the user's history, or the target
    itself, is left out.

    | input | shape |
    |---|---|
    | item_inputs_IK | [I+1, K] float: `ALLMRec.item_inputs` |
    | rows_B | [B] int64: the users' rows in `examples` |
    """
    targets_B = examples.targets[rows_B]
    negatives_M = torch.randint(1, len(item_inputs_IK), (NUM_NEGATIVES,)).to(targets_B.device)
    tokens = batch_tokens(rec, item_inputs_IK, examples, rows_B, torch.cat([targets_B, negatives_M]))
    users_BH = nn.functional.normalize(tokens.users, dim=1)
    items_NH = nn.functional.normalize(tokens.items, dim=1)
    temperature = rec.projection.log_temperature_cosine.exp()
    positive_B1 = (users_BH * items_NH[tokens.rows(targets_B)]).sum(dim=1, keepdim=True) / temperature
    in_history_BM = (examples.histories[rows_B][:, None, :] == negatives_M[None, :, None]).any(dim=2)
    left_out_BM = in_history_BM | (targets_B[:, None] == negatives_M)
    cosines_BM = users_BH @ items_NH[tokens.rows(negatives_M)].T
    negative_BM = (cosines_BM / temperature).masked_fill(left_out_BM, float("-inf"))
    logits = torch.cat([positive_B1, negative_BM], dim=1)
    return nn.functional.cross_entropy(logits, torch.zeros_like(targets_B))


def cosine_measure(
    rec: ALLMRec, item_inputs_IK: Tensor, users: Examples, seed: int
) -> Callable[[], dict[str, float]]:
    """Return a function that measures loss, Hit@1 and NDCG@10 of the users' targets by cosine.

    Each is ranked among NUM_EVALUATION_CANDIDATES − 1 sampled items (fewer in a small catalogue), which never
    change. `item_inputs_IK` [I+1, K] float are `rec.item_inputs()`.
    """
    candidates_BC = _evaluation_candidates(users, len(item_inputs_IK) - 1, seed).to(item_inputs_IK.device)
    targets_B = (candidates_BC == users.targets[:, None]).int().argmax(dim=1)
    rows_B = torch.arange(len(users), device=item_inputs_IK.device)

    def measure() -> dict[str, float]:
        tokens = batch_tokens(rec, item_inputs_IK, users, rows_B, candidates_BC)
        cosines_BC = torch.einsum(
            "bh,bch->bc",
            nn.functional.normalize(tokens.users, dim=1),
            nn.functional.normalize(tokens.items, dim=1)[tokens.rows(candidates_BC)],
        ).masked_fill(candidates_BC == 0, float("-inf"))
        logits_BC = cosines_BC / rec.projection.log_temperature_cosine.exp()
        loss = nn.functional.cross_entropy(logits_BC, targets_B)
        figures = metrics.figures(metrics.ranks_of_target(cosines_BC.cpu().numpy(), targets_B.cpu().numpy()))
        return {"loss": float(loss), "Hit@1": figures["Hit@1"], "NDCG@10": figures["NDCG@10"]}

    return measure


def _evaluation_candidates(users: Examples, num_items: int, seed: int) -> Tensor:
    """Return each user's candidates, the target among them: item_idx [B, C] int64, 0 is padding."""
    size = min(NUM_EVALUATION_CANDIDATES, max(num_items // 2, 2))
    lists = [users.candidates(row, size, num_items, seed, -1) for row in range(len(users))]
    candidates_BC = np.zeros((len(lists), max(map(len, lists), default=1)), dtype=np.int64)
    for row, candidates in enumerate(lists):
        candidates_BC[row, : len(candidates)] = candidates
    return torch.from_numpy(candidates_BC)


def _batches(num_users: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield one epoch's rows of users in seeded order: [batch_size] int64 each, the last may be shorter."""
    order = torch.from_numpy(seeds.generator(seed, "stage2", "warm start", epoch).permutation(num_users))
    yield from order.split(batch_size)

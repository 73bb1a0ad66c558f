"""Training the collaborative-filtering model on the snapshot's sequences, stopped early on held-back items, then frozen.

Every position of a sequence predicts the next item (SASRec §III.E). Negatives are uniform over the items with interactions in training.
Early stopping ranks the held-back item of the users with role early_stop among all trained items that the user never had.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec import metrics, seeds
from allmrec.config import CFConfig, Config
from allmrec.errors import InputError
from allmrec.models.cf import CFModel, build_cf_model
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.loader import Snapshot
from allmrec.training.loop import SMALL_MATRICES, Evaluation, fit, torch_threads, training_device
from allmrec.training.losses import bce_loss, sampled_softmax_loss
from allmrec.training.negatives import drawn, never_had

EPOCHS_WITHOUT_EARLY_STOPPING = 20
MOST_EARLY_STOPPING_USERS = 5000
EVALUATION_BLOCK = 1024


def train_cf(
    snapshot: Snapshot, config: Config, work: Path, report: Callable[[str], None]
) -> tuple[CFModel, dict[str, float]]:
    """Train the backbone of `config.cf` and return it (eval mode, on the CPU) with its figures.

    Checkpoints lie in `work/checkpoints`; a training that was killed goes on from the newest one. Figures: steps, loss, seconds, and the
    early-stopping users' Hit@1, HR@10, NDCG@10 of the best weights over the full catalogue (absent where no user was held back).
    Raises InputError where no user has two interactions.
    """
    settings = config.cf
    known = torch.from_numpy(snapshot.known_items())
    steps_per_epoch = snapshot.num_batches(settings.batch_size, min_length=2)
    if steps_per_epoch == 0:
        raise InputError(
            f"{snapshot.folder}/sequences: no user has two interactions, expected some to learn an order from; give more interactions"
        )
    device = training_device()
    with torch_threads(SMALL_MATRICES):
        model = _new_model(settings, snapshot, known, config.seed).to(device)
        judged = _early_stopping_users(snapshot, config.seed)
        epochs = settings.epochs if len(judged) else min(settings.epochs, EPOCHS_WITHOUT_EARLY_STOPPING)
        if not len(judged):
            report(f"cf: no user is held back for early stopping, so it trains {epochs} epochs")
        evaluation = Evaluation(
            lambda: evaluate_full_ranking(model, judged),
            "NDCG@10",
            settings.evaluate_every * steps_per_epoch,
            settings.patience,
        )
        history = fit(
            "cf",
            {"cf": model},
            torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True),
            lambda epoch: _batches(snapshot, settings, config.seed, epoch, device),
            _loss(model, settings),
            total_steps=epochs * steps_per_epoch,
            seed=config.seed,
            checkpointer=Checkpointer(
                work / "checkpoints",
                config.training.checkpoint_every,
                fingerprint(snapshot, config, "cf", epochs),
            ),
            report=report,
            evaluation=evaluation if len(judged) else None,
        )
    model.to("cpu").requires_grad_(False)
    return model.eval(), {
        "steps": float(history.step),
        "epochs": history.step / steps_per_epoch,
        "loss": history.recent_loss,
        "seconds": history.seconds,
        **{name: value for name, value in (history.best or {}).items() if name != "step"},
    }


def evaluate_full_ranking(model: CFModel, users: pd.DataFrame) -> dict[str, float]:
    """Return Hit@1, HR@10, NDCG@10 of `users` (held-back rows) among all trained items but those the user had; an untrained target is
    last."""
    device = model.known.device
    items = model.item_matrix()
    ranks = []
    for start in range(0, len(users), EVALUATION_BLOCK):
        block = users.iloc[start : start + EVALUATION_BLOCK]
        histories = torch.from_numpy(np.stack(block["item_idx"].to_list()).astype(np.int64)).to(device)
        scores = (
            (model.user_representation(histories) @ items.T)
            .masked_fill(~model.known, -math.inf)
            .cpu()
            .numpy()
        )
        targets = block["held_back"].to_numpy(dtype=np.int64)
        rows = np.arange(len(block))
        of_target = scores[rows, targets]
        had = [
            np.concatenate([seen, history])
            for seen, history in zip(block["seen"], block["item_idx"], strict=True)
        ]
        scores[np.repeat(rows, [len(one) for one in had]), np.concatenate(had).astype(np.int64)] = -math.inf
        scores[rows, targets] = of_target
        ranks.append(metrics.ranks_of_target(scores, targets))
    every = metrics.figures(np.concatenate(ranks))
    return {name: every[name] for name in ("Hit@1", "HR@10", "NDCG@10")}


def fingerprint(snapshot: Snapshot, config: Config, section: str, *extra: object) -> str:
    """Return the hash of what the training of one section depends on: its settings, the seed, the snapshot's manifest, and `extra`."""
    parts = [
        getattr(config, section).model_dump(mode="json"),
        config.seed,
        snapshot.manifest,
        [str(one) for one in extra],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _new_model(settings: CFConfig, snapshot: Snapshot, known: Tensor, seed: int) -> CFModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "cf", "initial weights"))
        model = build_cf_model(settings, snapshot.num_items, snapshot.max_history)
    model.set_known(known)
    return model


def _early_stopping_users(snapshot: Snapshot, seed: int) -> pd.DataFrame:
    users = snapshot.held_back("early_stop")
    if len(users) <= MOST_EARLY_STOPPING_USERS:
        return users
    chosen = seeds.generator(seed, "cf", "early stopping").permutation(len(users))[:MOST_EARLY_STOPPING_USERS]
    return users.iloc[np.sort(chosen)].reset_index(drop=True)


def _batches(
    snapshot: Snapshot, settings: CFConfig, seed: int, epoch: int, device: torch.device
) -> Iterator[Tensor]:
    for batch in snapshot.epoch(settings.batch_size, seed, epoch, columns=("item_idx",), min_length=2):
        yield torch.from_numpy(batch["item_idx"].astype(np.int64)).to(device)


def _loss(model: CFModel, settings: CFConfig) -> Callable[[Tensor], Tensor]:
    known_items_K = model.known.nonzero().squeeze(1)

    def loss(sequences_BL: Tensor) -> Tensor:
        inputs_BL, next_BL = sequences_BL[:, :-1], sequences_BL[:, 1:]
        real_BL = inputs_BL > 0
        states_ND, positives_N = model.position_representations(inputs_BL)[real_BL], next_BL[real_BL]
        items = model.item_matrix()
        positive_scores_N = (states_ND * items[positives_N]).sum(dim=1)
        if settings.loss == "bce":
            negatives_N = never_had(sequences_BL[real_BL.nonzero(as_tuple=True)[0]], known_items_K)
            return bce_loss(positive_scores_N, (states_ND * items[negatives_N]).sum(dim=1))
        negatives_M = drawn(known_items_K, settings.num_negatives)
        return sampled_softmax_loss(
            positive_scores_N, states_ND @ items[negatives_M].T, positives_N[:, None] == negatives_M
        )

    return loss

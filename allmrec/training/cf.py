"""Training of the collaborative-filtering model on the snapshot's sequences.

Every position of a sequence predicts the next item (SASRec, section III.E). Negatives are uniform over the
items with interactions in training. Early stopping ranks the held-back item of the users with role early_stop
among all trained items that the user never had.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec import metrics, seeds
from allmrec.config import CFConfig, Config, fingerprint
from allmrec.models.cf import CFModel, build_cf_model
from allmrec.models.item_features import ItemFeatures, principal_components
from allmrec.reporting import Report
from allmrec.training.batches import SequenceBatches
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.loader import Snapshot
from allmrec.training.loop import Evaluation, History, Training, fit
from allmrec.training.losses import bce_loss, sampled_softmax_loss
from allmrec.training.negatives import drawn, never_had
from allmrec.training.torch_settings import (
    THREADS_FOR_SMALL_MATRICES,
    seeded_initial_weights,
    torch_threads,
    training_device,
)
from allmrec.weights import hash_parameters

EPOCHS_WITHOUT_EARLY_STOPPING = 20
MAX_EARLY_STOPPING_USERS = 5000
EVALUATION_USERS_PER_BLOCK = 1024
"""Users whose scores of all items are held at a time."""
INITIAL_STD = 0.1
"""Standard deviation of item embeddings that start from features (tests/bench/README.md)."""
FIGURES = ("Hit@1", "HR@10", "NDCG@10")


def train_cf(
    snapshot: Snapshot, features: ItemFeatures, config: Config, folder: Path, report: Report
) -> tuple[CFModel, dict[str, float]]:
    """Train the model of `config.cf` and return it (eval mode, on the CPU) with its figures.

    Item embeddings start from the one of `features` that `cf.item_init` names.

    Checkpoints lie in `folder/checkpoints`; a training that was killed goes on from the newest one. Figures:
    steps, epochs, loss, seconds, and Hit@1, HR@10, NDCG@10 of the early-stopping users with the best weights,
    over all trained items (absent where nobody was held back). Raises InputError where no user has two
    interactions.
    """
    settings, device = config.cf, training_device()
    batches = SequenceBatches(snapshot, settings.batch_size, config.seed, device, "to learn an order from")
    users = _early_stopping_users(snapshot, config.seed)
    epochs = settings.epochs
    if not len(users) and settings.patience is not None:
        epochs = min(epochs, EPOCHS_WITHOUT_EARLY_STOPPING)
        report(f"cf: no user is held back for early stopping, so it trains {epochs} epochs")
    with torch_threads(THREADS_FOR_SMALL_MATRICES):
        model = _new_model(snapshot, features, settings, config.seed)
        initial = hash_parameters(model)
        model.to(device)
        training = Training(
            "cf",
            {"cf": model},
            torch.optim.Adam(
                model.parameters(), lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True
            ),
            batches,
            _loss(model, settings),
            total_steps=epochs * batches.steps_per_epoch,
            seed=config.seed,
            evaluation=_evaluation(model, users, settings, batches.steps_per_epoch) if len(users) else None,
        )
        inputs = fingerprint(
            part="cf",
            settings=settings,
            seed=config.seed,
            snapshot=snapshot.manifest,
            epochs=epochs,
            initial=initial,
        )
        checkpointer = Checkpointer(folder / "checkpoints", config.training.checkpoint_every, inputs)
        history = fit(training, checkpointer, report)
    model.to("cpu").requires_grad_(False)
    return model.eval(), _figures(history, batches.steps_per_epoch)


def evaluate_full_ranking(model: CFModel, users: pd.DataFrame) -> dict[str, float]:
    """Return Hit@1, HR@10 and NDCG@10 of the held-back items of `users` (rows of `Snapshot.held_back`).

    Each is ranked among all trained items but those that the user had; an item that was not trained is last.
    """
    items_ID = model.item_matrix()
    blocks = [
        _ranks_of_block(model, items_ID, users.iloc[start : start + EVALUATION_USERS_PER_BLOCK])
        for start in range(0, len(users), EVALUATION_USERS_PER_BLOCK)
    ]
    figures = metrics.figures(np.concatenate(blocks))
    return {name: figures[name] for name in FIGURES}


def _ranks_of_block(model: CFModel, items_ID: Tensor, users: pd.DataFrame) -> np.ndarray:
    """Return the ranks [B] float64, from 1, of held-back items; `items_ID` [I+1, D] is the item matrix."""
    histories_BL = torch.from_numpy(np.stack(users["item_idx"].to_list()).astype(np.int64))
    vectors_BD = model.user_representation(histories_BL.to(model.known.device))
    scores_BI = (vectors_BD @ items_ID.T).masked_fill(~model.known, -math.inf).cpu().numpy()
    targets_B, rows_B = users["held_back"].to_numpy(dtype=np.int64), np.arange(len(users))
    target_scores_B = scores_BI[rows_B, targets_B]
    had = [
        np.concatenate([seen, history])
        for seen, history in zip(users["seen"], users["item_idx"], strict=True)
    ]
    scores_BI[
        np.repeat(rows_B, [len(items) for items in had]), np.concatenate(had).astype(np.int64)
    ] = -math.inf
    scores_BI[rows_B, targets_B] = target_scores_B
    return metrics.ranks_of_target(scores_BI, targets_B)


def _new_model(snapshot: Snapshot, features: ItemFeatures, settings: CFConfig, seed: int) -> CFModel:
    """Return the untrained model, told which items have interactions."""
    with seeded_initial_weights(seed, "cf"):
        model = build_cf_model(settings, snapshot.num_items, snapshot.max_history)
    if settings.item_init != "random":
        components_IC = principal_components(features[settings.item_init], settings.width, INITIAL_STD)
        with torch.no_grad():  # columns for which the features have no component stay as they were drawn
            model.item_matrix()[:, : components_IC.shape[1]] = components_IC
    model.set_known(torch.from_numpy(snapshot.known_items()))
    return model


def _early_stopping_users(snapshot: Snapshot, seed: int) -> pd.DataFrame:
    """Return the rows of the early-stopping users, a seeded sample where there are many."""
    users = snapshot.held_back("early_stop")
    if len(users) <= MAX_EARLY_STOPPING_USERS:
        return users
    chosen = seeds.generator(seed, "cf", "early stopping").permutation(len(users))[:MAX_EARLY_STOPPING_USERS]
    return users.iloc[np.sort(chosen)].reset_index(drop=True)


def _evaluation(model: CFModel, users: pd.DataFrame, settings: CFConfig, steps_per_epoch: int) -> Evaluation:
    return Evaluation(
        lambda: evaluate_full_ranking(model, users),
        "NDCG@10",
        settings.evaluate_every * steps_per_epoch,
        settings.patience,
    )


def _loss(model: CFModel, settings: CFConfig) -> Callable[[Tensor], Tensor]:
    """Return the function from sequences [B, L] int64 to the scalar loss of all their positions."""
    known_items_K = model.known.nonzero().squeeze(1)

    def loss(sequences_BL: Tensor) -> Tensor:
        inputs_BL, next_BL = sequences_BL[:, :-1], sequences_BL[:, 1:]
        real_BL = inputs_BL > 0
        states_ND, positives_N = model.position_representations(inputs_BL)[real_BL], next_BL[real_BL]
        items_ID = model.item_matrix()
        positive_scores_N = (states_ND * items_ID[positives_N]).sum(dim=1)
        if settings.loss == "bce":
            negatives_N = never_had(sequences_BL[real_BL.nonzero(as_tuple=True)[0]], known_items_K)
            return bce_loss(positive_scores_N, (states_ND * items_ID[negatives_N]).sum(dim=1))
        negatives_M = drawn(known_items_K, settings.num_negatives)
        return sampled_softmax_loss(
            positive_scores_N, states_ND @ items_ID[negatives_M].T, positives_N[:, None] == negatives_M
        )

    return loss


def _figures(history: History, steps_per_epoch: int) -> dict[str, float]:
    return {
        "steps": float(history.step),
        "epochs": history.step / steps_per_epoch,
        "loss": history.recent_loss,
        "seconds": history.seconds,
        **{name: value for name, value in (history.best or {}).items() if name != "step"},
    }

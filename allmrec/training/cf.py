"""Training of the collaborative-filtering model on the snapshot's sequences.

Every position of a sequence predicts the next item (SASRec, section III.E). Negatives are uniform over the
items with interactions in training. Early stopping ranks the held-back item of the users with role early_stop
among all trained items that a night may show them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from allmrec import metrics, seeds
from allmrec.config import CFConfig, Config, fingerprint
from allmrec.models.cf import BACKBONES, CFModel, build_cf_model
from allmrec.models.item_features import ItemFeatures, principal_components
from allmrec.reporting import Report
from allmrec.training.batches import MIN_LENGTH, SequenceBatches
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.group import ALONE, Group
from allmrec.training.loader import Snapshot
from allmrec.training.loop import Evaluation, History, Training, fit, fit_elsewhere
from allmrec.training.losses import bce_loss, sampled_softmax_loss
from allmrec.training.order.held_back import comes_again
from allmrec.training.torch_settings import (
    THREADS_FOR_SMALL_MATRICES,
    seeded_initial_weights,
    torch_threads,
    training_device,
)
from allmrec.training.uniform_negatives import drawn, never_had
from allmrec.training.work import Work
from allmrec.weights import hash_parameters

EPOCHS_WITHOUT_EARLY_STOPPING = 20
MAX_EARLY_STOPPING_USERS = 5000
EVALUATION_USERS_PER_BLOCK = 1024
"""Users whose scores of all items are held at a time."""
INITIAL_STD = 0.1
"""Standard deviation of item embeddings that start from features (tests/bench/README.md)."""
START = "start.safetensors"
"""The model before training, where several processes read it."""
FIGURES = ("Hit@1", "HR@10", "NDCG@10")


def train_cf(work: Work, features: ItemFeatures) -> tuple[CFModel, dict[str, float]]:
    """Train the model of `config.cf` and return it (eval mode, on the CPU) with its figures.

    Item embeddings start from the one of `features` that `cf.item_init` names.

    Checkpoints lie in `work.folder/checkpoints`; a killed training goes on from the newest one. Figures:
    steps, epochs, loss, seconds, and Hit@1, HR@10, NDCG@10 of the early-stopping users with the best weights,
    over all trained items (absent where nobody was held back). With `work.launch` several processes train,
    each by `train_cf_share`. Raises InputError where no user has two interactions.
    """
    settings = work.config.cf
    launch = work.launch
    with torch_threads(THREADS_FOR_SMALL_MATRICES):
        model = _new_model(work.snapshot, features, settings, work.config.seed)
        training, checkpointer = _training(model, work)
        if launch is None:
            history = fit(training, checkpointer, work.report)
        else:
            work.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: one.clone() for name, one in model.state_dict().items()}, work.folder / START)
            history = fit_elsewhere(training, checkpointer, work.report, lambda: launch("cf", work))
    model.to("cpu").requires_grad_(False)
    return model.eval(), _figures(history, work.snapshot.num_batches(settings.batch_size, MIN_LENGTH))


def train_cf_share(work: Work, group: Group) -> None:
    """Train, as one process of several, the model that `train_cf` left, up to its checkpoint."""
    with torch_threads(THREADS_FOR_SMALL_MATRICES):
        model = build_cf_model(work.config.cf, work.snapshot.num_items, work.snapshot.max_history)
        model.load_state_dict(load_file(work.folder / START))
        training, checkpointer = _training(model, replace(work, report=Report()), group)
        fit(training, checkpointer, work.report, group)


def _training(model: CFModel, work: Work, group: Group = ALONE) -> tuple[Training[Tensor], Checkpointer]:
    """Return the training of `model`, which moves to its device, and where its checkpoints lie."""
    snapshot = work.snapshot
    config = work.config
    settings = config.cf
    device = training_device()
    batches = SequenceBatches(snapshot, settings.batch_size, config.seed, device, "to learn an order from")
    users = _early_stopping_users(snapshot, config)
    epochs = settings.epochs
    if not len(users) and settings.patience is not None:
        epochs = min(epochs, EPOCHS_WITHOUT_EARLY_STOPPING)
        work.report(f"cf: no user is held back for early stopping, so it trains {epochs} epochs")
    inputs = fingerprint(
        part="cf",
        settings=settings.decisive(),
        seed=config.seed,
        snapshot=snapshot.manifest,
        epochs=epochs,
        initial=hash_parameters(model),
    )
    model.to(device)
    training = Training(
        "cf",
        {"cf": model},
        torch.optim.Adam(
            model.parameters(), lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True
        ),
        batches,
        OBJECTIVES[BACKBONES[settings.model].objective](model, settings, group),
        total_steps=epochs * batches.steps_per_epoch,
        seed=config.seed,
        evaluation=_evaluation(model, users, config, batches.steps_per_epoch) if len(users) else None,
    )
    return training, Checkpointer(work.folder / "checkpoints", config.training.checkpoint_every, inputs)


def evaluate_full_ranking(model: CFModel, users: pd.DataFrame, exclude_seen: bool = True) -> dict[str, float]:
    """Return Hit@1, HR@10 and NDCG@10 of the held-back items of `users` (rows of `Snapshot.held_back`).

    Each is ranked among all trained items, with `exclude_seen` without those that the user had before. An
    item that was not trained is last.
    """
    items_ID = model.item_matrix()
    blocks = [
        _ranks_of_block(model, items_ID, users.iloc[start : start + EVALUATION_USERS_PER_BLOCK], exclude_seen)
        for start in range(0, len(users), EVALUATION_USERS_PER_BLOCK)
    ]
    figures = metrics.figures(np.concatenate(blocks))
    return {name: figures[name] for name in FIGURES}


def _ranks_of_block(model: CFModel, items_ID: Tensor, users: pd.DataFrame, exclude_seen: bool) -> np.ndarray:
    """Return the ranks [B] float64, from 1, of held-back items; `items_ID` [I+1, D] is the item matrix."""
    histories_BL = torch.from_numpy(np.stack(users["item_idx"].to_list()).astype(np.int64))
    vectors_BD = model.user_representation(histories_BL.to(model.known.device))
    scores_BI = (vectors_BD @ items_ID.T).masked_fill(~model.known, -math.inf).cpu().numpy()
    targets_B = users["held_back"].to_numpy(dtype=np.int64)
    rows_B = np.arange(len(users))
    if exclude_seen:
        target_scores_B = scores_BI[rows_B, targets_B]
        lengths = [len(items) for items in users["seen_before"]]
        seen_N = np.concatenate(users["seen_before"].to_list()).astype(np.int64)
        scores_BI[np.repeat(rows_B, lengths), seen_N] = -math.inf
        scores_BI[rows_B, targets_B] = target_scores_B
    return metrics.ranks_of_target(scores_BI, targets_B)


def _new_model(snapshot: Snapshot, features: ItemFeatures, settings: CFConfig, seed: int) -> CFModel:
    """Return the untrained model, told which items have interactions."""
    with seeded_initial_weights(seed, "cf"):
        model = build_cf_model(settings, snapshot.num_items, snapshot.max_history)
    if settings.item_init != "random":
        model.start_from(principal_components(features[settings.item_init], settings.width, INITIAL_STD))
    model.set_known(torch.from_numpy(snapshot.known_items()))
    return model


def _early_stopping_users(snapshot: Snapshot, config: Config) -> pd.DataFrame:
    """Return the rows of the early-stopping users, a seeded sample where there are many.

    Users whose held-back item no list can hold are left out.
    """
    users = snapshot.held_back("early_stop")
    if config.candidates.exclude_seen:
        users = users[~comes_again(users)].reset_index(drop=True)
    if len(users) <= MAX_EARLY_STOPPING_USERS:
        return users
    random = seeds.generator(config.seed, "cf", "early stopping")
    chosen = random.permutation(len(users))[:MAX_EARLY_STOPPING_USERS]
    return users.iloc[np.sort(chosen)].reset_index(drop=True)


def _evaluation(model: CFModel, users: pd.DataFrame, config: Config, steps_per_epoch: int) -> Evaluation:
    return Evaluation(
        lambda: evaluate_full_ranking(model, users, config.candidates.exclude_seen),
        "NDCG@10",
        config.cf.evaluate_every * steps_per_epoch,
        config.cf.patience,
    )


def _loss(model: CFModel, settings: CFConfig, group: Group) -> Callable[[Tensor], Tensor]:
    """Return the function from sequences [B, L] int64 to the loss of all their positions, a scalar.

    It computes the part of this process's share, S of the B sequences. Negatives are drawn for the whole
    batch: what differs from a process alone is dropout.
    """
    known_items_K = model.known.nonzero().squeeze(1)

    def negatives(sequences_BL: Tensor, real_BL: Tensor, own: slice) -> Tensor:
        with group.same_draws():
            if settings.loss == "sampled_softmax":
                return drawn(known_items_K, settings.num_negatives)
            rows = real_BL.nonzero(as_tuple=True)[0]
            return never_had(sequences_BL[rows], known_items_K)[(rows >= own.start) & (rows < own.stop)]

    def loss(sequences_BL: Tensor) -> Tensor:
        own = group.share(len(sequences_BL))
        real_BL = sequences_BL[:, :-1] > 0
        inputs_SL = sequences_BL[own, :-1]
        next_SL = sequences_BL[own, 1:]
        real_SL = real_BL[own]
        items_ID = model.item_matrix()
        if not len(inputs_SL):  # fewer sequences than processes
            return items_ID.sum() * 0.0
        states_ND = model.position_representations(inputs_SL)[real_SL]
        positives_N = next_SL[real_SL]
        positive_scores_N = (states_ND * items_ID[positives_N]).sum(dim=1)
        negatives_M = negatives(sequences_BL, real_BL, own)
        if settings.loss == "bce":  # M is N: one negative for each position
            mean = bce_loss(positive_scores_N, (states_ND * items_ID[negatives_M]).sum(dim=1))
        else:
            mean = sampled_softmax_loss(
                positive_scores_N, states_ND @ items_ID[negatives_M].T, positives_N[:, None] == negatives_M
            )
        return mean * (len(positives_N) / int(real_BL.sum()))

    return loss


OBJECTIVES: Mapping[str, Callable[[CFModel, CFConfig, Group], Callable[[Tensor], Tensor]]] = {
    "next_item": _loss
}
"""Losses by the name of `Backbone.objective`."""


def _figures(history: History, steps_per_epoch: int) -> dict[str, float]:
    return {
        "steps": float(history.step),
        "epochs": history.step / steps_per_epoch,
        "loss": history.recent_loss,
        "seconds": history.seconds,
        **{name: value for name, value in (history.best or {}).items() if name != "step"},
    }

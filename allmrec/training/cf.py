"""Training of the collaborative-filtering model on the snapshot's sequences.

The backbone names its objective. Early stopping ranks the held-back item of the users with role early_stop
among all trained items that a night may show them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

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
from allmrec.training.checkpoint import Checkpointer
from allmrec.training.group import ALONE, Group
from allmrec.training.loader import Snapshot
from allmrec.training.loop import Evaluation, History, Training, fit, fit_elsewhere
from allmrec.training.objectives import OBJECTIVES, Objective
from allmrec.training.order.held_back import comes_again
from allmrec.training.torch_settings import (
    THREADS_FOR_SMALL_MATRICES,
    seeded_initial_weights,
    torch_threads,
    training_device,
)
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
FEATURES = "features.safetensors"
"""The item features, where several processes read them."""
FIGURES = ("Hit@1", "HR@10", "NDCG@10")


def train_cf(work: Work, features: ItemFeatures) -> tuple[CFModel, dict[str, float]]:
    """Train the model of `config.cf` and return it (eval mode, on the CPU) with its figures.

    Item embeddings start from the one of `features` that `cf.item_init` names.

    Checkpoints lie in `work.folder/checkpoints`; a killed training goes on from the newest one. Figures:
    steps, epochs, loss, seconds, and Hit@1, HR@10, NDCG@10 of the early-stopping users with the best weights,
    over all trained items (absent where nobody was held back). With `work.launch` several processes train,
    each by `train_cf_share`. Raises InputError where the objective has too few interactions.
    """
    settings = work.config.cf
    launch = work.launch
    with torch_threads(THREADS_FOR_SMALL_MATRICES):
        model = _new_model(work.snapshot, features, settings, work.config.seed)
        training, checkpointer, objective = _training(model, work, features)
        if launch is None:
            history = fit(training, checkpointer, work.report)
        else:
            work.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: one.clone() for name, one in model.state_dict().items()}, work.folder / START)
            save_file({name: one.contiguous() for name, one in features.items()}, work.folder / FEATURES)
            history = fit_elsewhere(training, checkpointer, work.report, lambda: launch("cf", work))
        objective.settle()
    model.to("cpu").requires_grad_(False)
    return model.eval(), _figures(history, objective.batches.steps_per_epoch)


def train_cf_share(work: Work, group: Group) -> None:
    """Train, as one process of several, the model that `train_cf` left, up to its checkpoint."""
    with torch_threads(THREADS_FOR_SMALL_MATRICES):
        model = build_cf_model(work.config.cf, work.snapshot.num_items, work.snapshot.max_history)
        model.load_state_dict(load_file(work.folder / START))
        features = load_file(work.folder / FEATURES)
        training, checkpointer, _ = _training(model, replace(work, report=Report()), features, group)
        fit(training, checkpointer, work.report, group)


def _training(
    model: CFModel, work: Work, features: ItemFeatures, group: Group = ALONE
) -> tuple[Training[Any], Checkpointer, Objective]:
    """Return the training of `model`, which moves to its device, its checkpoints, and its objective."""
    config = work.config
    settings = config.cf
    initial = hash_parameters(model)
    device = training_device()
    model.to(device)
    objective = OBJECTIVES[BACKBONES[settings.model].objective](model, work, features, device, group)
    users = _early_stopping_users(work.snapshot, config)
    epochs = settings.epochs
    if not len(users) and settings.patience is not None:
        epochs = min(epochs, EPOCHS_WITHOUT_EARLY_STOPPING)
        work.report(f"cf: no user is held back for early stopping, so it trains {epochs} epochs")
    inputs = fingerprint(
        part="cf",
        settings=settings.decisive(),
        seed=config.seed,
        snapshot=work.snapshot.manifest,
        epochs=epochs,
        initial=initial,
    )
    parameters = [one for module in objective.modules.values() for one in module.parameters()]
    steps_per_epoch = objective.batches.steps_per_epoch
    training = Training(
        "cf",
        objective.modules,
        torch.optim.Adam(parameters, lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True),
        objective.batches,
        objective.loss,
        total_steps=epochs * steps_per_epoch,
        seed=config.seed,
        evaluation=_evaluation(model, objective, users, config) if len(users) else None,
    )
    checkpointer = Checkpointer(work.folder / "checkpoints", config.training.checkpoint_every, inputs)
    return training, checkpointer, objective


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


def _evaluation(model: CFModel, objective: Objective, users: pd.DataFrame, config: Config) -> Evaluation:
    def measure() -> dict[str, float]:
        objective.settle()
        return evaluate_full_ranking(model, users, config.candidates.exclude_seen)

    every_steps = config.cf.evaluate_every * objective.batches.steps_per_epoch
    return Evaluation(measure, "NDCG@10", every_steps, config.cf.patience)


def _figures(history: History, steps_per_epoch: int) -> dict[str, float]:
    return {
        "steps": float(history.step),
        "epochs": history.step / steps_per_epoch,
        "loss": history.recent_loss,
        "seconds": history.seconds,
        **{name: value for name, value in (history.best or {}).items() if name != "step"},
    }

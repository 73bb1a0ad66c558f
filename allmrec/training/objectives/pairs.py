"""The objectives of factor models, on pairs of a user and an item.

A batch has all pairs of `cf.batch_size` users, and negatives for each: uniform over the items with
interactions in training that the user had not. In `pairs` a pair is ranked before one negative (BPR). In
`labelled_pairs` a pair has the label 1 and NUM_LABELLED_NEGATIVES negatives have the label 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from allmrec.errors import InputError
from allmrec.models.cf import CFModel
from allmrec.models.cf.factors import FactorModel, Interactions, Learner
from allmrec.models.item_features import ItemFeatures
from allmrec.training.group import Group
from allmrec.training.losses import bpr_loss, labels_loss
from allmrec.training.objectives.objective import Objective
from allmrec.training.torch_settings import seeded_initial_weights
from allmrec.training.uniform_negatives import never_had
from allmrec.training.work import Work

NUM_LABELLED_NEGATIVES = 4
"""Negatives of a pair where they have labels, as in the NCF paper."""


class UserItems(NamedTuple):
    """A batch of users and their items."""

    user_B: Tensor
    """Numbers of users from 0, int64."""
    items_BL: Tensor
    """item_idx, int64, 0 is padding."""


class UserBatches:
    """Batches of users and their items on a device, in seeded order."""

    def __init__(self, work: Work, user_ids: np.ndarray, device: torch.device) -> None:
        self.snapshot = work.snapshot
        self.batch_size = work.config.cf.batch_size
        self.seed = work.config.seed
        self.user_ids = user_ids
        self.device = device
        self.steps_per_epoch = self.snapshot.num_batches(self.batch_size)

    def __call__(self, epoch: int) -> Iterator[UserItems]:
        """Yield the batches of `epoch`; the last one may have fewer users."""
        for batch in self.snapshot.epoch(self.batch_size, self.seed, epoch, columns=("user_id", "item_idx")):
            user_B = torch.from_numpy(np.searchsorted(self.user_ids, batch["user_id"].astype(object)))
            items_BL = torch.from_numpy(batch["item_idx"].astype(np.int64))
            yield UserItems(user_B.to(self.device), items_BL.to(self.device))


class PairLoss:
    """The mean loss of a batch's pairs, and the learner's penalty."""

    def __init__(
        self,
        model: FactorModel,
        learner: Learner,
        group: Group,
        num_negatives: int = 1,
        loss: Callable[[Tensor, Tensor], Tensor] = bpr_loss,
    ) -> None:
        self.learner = learner
        self.group = group
        self.num_negatives = num_negatives
        self.loss = loss
        self.known_K = model.known.nonzero().squeeze(1)

    def __call__(self, batch: UserItems) -> Tensor:
        """Return the part of this process's share in the loss, a scalar."""
        row_N, column_N = (batch.items_BL > 0).nonzero(as_tuple=True)
        with self.group.same_draws():
            rows_NL = batch.items_BL[row_N]
            negatives = [never_had(rows_NL, self.known_K) for _ in range(self.num_negatives)]
        own = self.group.share(len(batch.items_BL))
        is_own_N = (row_N >= own.start) & (row_N < own.stop)
        user_N = batch.user_B[row_N][is_own_N]
        item_NM = torch.stack([batch.items_BL[row_N, column_N], *negatives], dim=1)[is_own_N]
        users_ND, items_ID = self.learner.vectors(user_N)
        if not len(user_N):  # fewer users than processes
            return items_ID.sum() * 0.0
        score_NM = torch.einsum("nd,nmd->nm", users_ND, items_ID[item_NM])
        mean = self.loss(score_NM[:, 0], score_NM[:, 1:]) + self.learner.penalty(user_N, item_NM)
        return mean * (len(user_N) / len(row_N))


def pairs(
    model: CFModel, work: Work, features: ItemFeatures, device: torch.device, group: Group
) -> Objective:
    """Return the objective of a factor model on `device`, by BPR.

    Raises InputError where fewer than two items have a user.
    """
    return _prepared(model, work, features, device, group, 1, bpr_loss)


def labelled_pairs(
    model: CFModel, work: Work, features: ItemFeatures, device: torch.device, group: Group
) -> Objective:
    """Return the objective of a factor model on `device`, by binary cross-entropy.

    Raises InputError where fewer than two items have a user.
    """
    return _prepared(model, work, features, device, group, NUM_LABELLED_NEGATIVES, labels_loss)


def _prepared(
    model: CFModel,
    work: Work,
    features: ItemFeatures,
    device: torch.device,
    group: Group,
    num_negatives: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Objective:
    if not isinstance(model, FactorModel):
        raise TypeError(f"{type(model).__name__} learns from pairs, expected a FactorModel")
    user_ids, users_N, items_N = work.snapshot.pairs()
    num_items = len(np.unique(items_N))
    if num_items < 2:
        raise InputError(
            f"{work.snapshot.folder}/sequences: {len(items_N)} pairs of a user and an item, of {num_items} "
            "different items, expected two different items or more, so that a user lacks one; "
            "give more interactions"
        )
    log = Interactions(len(user_ids), torch.from_numpy(users_N), torch.from_numpy(items_N))
    with seeded_initial_weights(work.config.seed, "cf learner"):
        learner = model.learner(log, features).to(device)
    nobody = torch.zeros(0, dtype=torch.int64, device=device)
    return Objective(
        UserBatches(work, user_ids, device),
        PairLoss(model, learner, group, num_negatives, loss),
        {"cf": model, "learner": learner},
        lambda: model.settle(learner.vectors(nobody)[1]),
    )

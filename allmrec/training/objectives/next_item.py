"""The objective of sequential CF models: every position of a sequence predicts the next item.

SASRec, section III.E. Negatives are uniform over the items with interactions in training. With
`cf.robust_weight` α > 0 the loss has α times that of `robust_loss` beside it (DROS).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf import CFModel
from allmrec.models.cf.morec import MoRec
from allmrec.models.item_features import ItemFeatures
from allmrec.training.batches import SequenceBatches
from allmrec.training.group import Group
from allmrec.training.losses import bce_loss, robust_loss, sampled_softmax_loss
from allmrec.training.objectives.objective import Objective
from allmrec.training.torch_settings import seeded_initial_weights
from allmrec.training.uniform_negatives import drawn, never_had
from allmrec.training.work import Work


def next_item(
    model: CFModel, work: Work, features: ItemFeatures, device: torch.device, group: Group
) -> Objective:
    """Return the objective of a sequential model on `device`.

    Raises InputError where no user has two interactions.
    """
    config = work.config
    batches = SequenceBatches(
        work.snapshot, config.cf.batch_size, config.seed, device, "to learn an order from"
    )
    counts_I = torch.from_numpy(work.snapshot.items()["num_interactions"].to_numpy())
    counts_I = nn.functional.pad(counts_I, (1, 0)).to(device)
    loss = NextItemLoss(model, config.cf, group, counts_I)
    if not isinstance(model, MoRec):
        return Objective(batches, loss, {"cf": model}, lambda: None)
    with seeded_initial_weights(config.seed, "cf texts"):
        loss.texts = model.text_map(features).to(device)
    modules = {"cf": model, "texts": loss.texts}
    return Objective(batches, loss, modules, lambda: model.settle(loss.items()))


class NextItemLoss:
    """The mean loss of all positions of a batch of sequences."""

    def __init__(self, model: CFModel, settings: CFConfig, group: Group, counts_I: Tensor) -> None:
        self.model = model
        self.settings = settings
        self.group = group
        self.known_K = model.known.nonzero().squeeze(1)
        self.counts_K = counts_I[self.known_K]
        self.texts: nn.Module | None = None
        """The network that makes E. None: the model has a table of its own."""

    def items(self) -> Tensor:
        """Return E [I+1, D], with gradients."""
        return self.model.item_matrix() if self.texts is None else self.texts()

    def states(self, inputs_SL: Tensor, items_ID: Tensor) -> Tensor:
        """Return the states [S, L, D] of histories, int64, by the item vectors."""
        if isinstance(self.model, MoRec):
            return self.model.states_by(items_ID, inputs_SL)
        return self.model.position_representations(inputs_SL)

    def negatives(self, sequences_BL: Tensor, real_BL: Tensor, own: slice) -> Tensor:
        """Return negatives, [M] int64.

        The batch shares them, or by `bce` each position of the share has its own. They are drawn for the
        whole batch, so that several processes differ in dropout alone.
        """
        with self.group.same_draws():
            if self.settings.loss == "sampled_softmax":
                return drawn(self.known_K, self.settings.num_negatives)
            rows = real_BL.nonzero(as_tuple=True)[0]
            return never_had(sequences_BL[rows], self.known_K)[(rows >= own.start) & (rows < own.stop)]

    def __call__(self, sequences_BL: Tensor) -> Tensor:
        """Return the part of this process's share in the loss, a scalar. Sequences are int64."""
        own = self.group.share(len(sequences_BL))
        real_BL = sequences_BL[:, :-1] > 0
        inputs_SL = sequences_BL[own, :-1]
        real_SL = real_BL[own]
        items_ID = self.items()
        if not len(inputs_SL):  # fewer sequences than processes
            return items_ID.sum() * 0.0
        states_ND = self.states(inputs_SL, items_ID)[real_SL]
        positives_N = sequences_BL[own, 1:][real_SL]
        positive_scores_N = (states_ND * items_ID[positives_N]).sum(dim=1)
        negatives_M = self.negatives(sequences_BL, real_BL, own)
        if self.settings.loss == "bce":  # M is N: one negative for each position
            mean = bce_loss(positive_scores_N, (states_ND * items_ID[negatives_M]).sum(dim=1))
        else:
            mean = sampled_softmax_loss(
                positive_scores_N, states_ND @ items_ID[negatives_M].T, positives_N[:, None] == negatives_M
            )
        if self.settings.robust_weight:
            scores_NK = states_ND @ items_ID[self.known_K].T
            is_next_NK = positives_N[:, None] == self.known_K
            mean = mean + self.settings.robust_weight * robust_loss(scores_NK, is_next_NK, self.counts_K)
        return mean * (len(positives_N) / int(real_BL.sum()))

"""Objectives of CF models: batches, loss, and the modules that are trained beside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from allmrec.models.cf import CFModel
from allmrec.models.item_features import ItemFeatures
from allmrec.training.group import Group
from allmrec.training.objectives.next_item import next_item
from allmrec.training.objectives.objective import Objective
from allmrec.training.objectives.pairs import labelled_pairs, pairs
from allmrec.training.work import Work

__all__ = ["OBJECTIVES", "Objective"]

OBJECTIVES: Mapping[str, Callable[[CFModel, Work, ItemFeatures, torch.device, Group], Objective]] = {
    "next_item": next_item,
    "pairs": pairs,
    "labelled_pairs": labelled_pairs,
}
"""Objectives by the name of `Backbone.objective`.

`OBJECTIVES[name](model, work, features, device, group)` prepares the objective of a model on a device.
"""

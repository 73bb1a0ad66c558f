"""The contract of collaborative-filtering backbones: an item matrix E and a user representation x_u.

Histories are [B, L] int64 item_idx, oldest first, LEFT-padded with 0. Items the model was not trained on
(`known` false, or an index beyond its catalogue, as for items added since) are invisible in a history, score
0 as candidates, and must be told apart by the caller through `known`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from allmrec.config import CFConfig


class CFModel(nn.Module, ABC):
    """A sequential recommender over items 1..num_items with embedding width D = `width`."""

    known: Tensor

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.width = width
        known = torch.ones(num_items + 1, dtype=torch.bool)
        known[0] = False
        self.register_buffer("known", known)

    def set_known(self, known: Tensor) -> None:
        """Say which items have interactions in training ([I+1] bool; false at 0). Saved with the weights.

        Raises ValueError for another shape, or where the padding item is known.
        """
        if known.shape != self.known.shape or bool(known[0]):
            raise ValueError(
                f"known has shape {tuple(known.shape)}, expected {tuple(self.known.shape)} "
                "with false at the padding index 0"
            )
        self.known.copy_(known)

    @abstractmethod
    def with_items(self, matrix: Tensor) -> CFModel:
        """Return the same trained network over other items, all known: E = `matrix` [I+1, D], row 0 zeros."""

    @abstractmethod
    def start_from(self, vectors_IC: Tensor) -> None:
        """Let the untrained item embeddings begin with the first C columns of features, [I+1, C], C ≤ D.

        The other columns stay as they were drawn. `item_matrix` has the vectors then.
        """

    @abstractmethod
    def item_matrix(self) -> Tensor:
        """E: [I+1, D] float, row 0 zeros; gradients flow into it."""

    @abstractmethod
    def position_representations(self, histories_BL: Tensor) -> Tensor:
        """[B, L, D]: the state after every position of the history, zeros at padding and at unknown items.

        The newest one is x_u. An older one may depend on how many items follow it (SASRec's positions do),
        never on which.
        """

    @abstractmethod
    def user_representation(self, histories_BL: Tensor) -> Tensor:
        """x_u: [B, D], after the last known item; zeros for a history without any."""

    def visible(self, histories_BL: Tensor) -> Tensor:
        """Return the histories [B, L] with 0 in place of every item that the model does not know."""
        inside_BL = histories_BL.where(histories_BL <= self.num_items, 0)
        return inside_BL.where(self.known[inside_BL], 0)

    def score(self, histories_BL: Tensor, candidates_BC: Tensor) -> Tensor:
        """[B, C]: x_u · E_c; 0 for padding and for items the model does not know."""
        candidates_BCD = self.item_matrix()[self.visible(candidates_BC)]
        return torch.einsum("bd,bcd->bc", self.user_representation(histories_BL), candidates_BCD)


@dataclass(frozen=True)
class Catalogue:
    """Sizes that a backbone is built for."""

    num_items: int
    """Items are 1..num_items."""
    max_history: int
    """Histories hold at most so many items."""


@dataclass(frozen=True)
class Backbone:
    """The constructor and the objective of a CF model, named BACKBONE in its file."""

    build: Callable[[CFConfig, Catalogue], CFModel]
    """Returns the untrained model; its own settings are the section of its name."""
    objective: Literal["next_item", "pairs", "labelled_pairs"] = "next_item"
    """The objective, by its name in `allmrec.training.objectives.OBJECTIVES`."""

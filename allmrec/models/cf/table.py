"""CF models with an item table E. Scores are x_u · E_i."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from allmrec.models.cf.base import CFModel

EMBEDDING_STD = 0.02
"""Standard deviation of item embeddings that are drawn."""

Model = TypeVar("Model", bound="TableModel")


class TableModel(CFModel):
    """A CF model whose item vectors are the rows of `item_embedding`."""

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__(num_items, width)
        self.item_embedding = nn.Embedding(num_items + 1, width, padding_idx=0)

    @torch.no_grad()
    def draw_items(self) -> None:
        """Draw the item embeddings anew; row 0 becomes zeros."""
        nn.init.normal_(self.item_embedding.weight, std=EMBEDDING_STD)
        self.item_embedding.weight[0] = 0

    def with_items(self: Model, matrix: Tensor) -> Model:
        """Return the same trained network over other items, all known: E = `matrix` [I+1, D], row 0 zeros."""
        other = copy.deepcopy(self)
        other.num_items = len(matrix) - 1
        other.item_embedding = nn.Embedding.from_pretrained(matrix.detach().clone(), padding_idx=0)
        other.known = torch.arange(len(matrix), device=self.known.device) > 0
        return other

    @torch.no_grad()
    def start_from(self, vectors_IC: Tensor) -> None:
        """Let the item embeddings begin with the first C columns of features, [I+1, C], C ≤ D."""
        self.item_embedding.weight[:, : vectors_IC.shape[1]] = vectors_IC

    @torch.no_grad()
    def settle(self, matrix_ID: Tensor) -> None:
        """Take over E [I+1, D], row 0 zeros, from the networks that learned it."""
        self.item_embedding.weight.copy_(matrix_ID)

    def item_matrix(self) -> Tensor:
        """E: [I+1, D]; row 0 is zeros (the padding row gets no gradient)."""
        return self.item_embedding.weight

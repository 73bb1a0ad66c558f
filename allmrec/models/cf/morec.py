"""MoRec: SASRec over item vectors that are a map of the texts (Yuan et al., SIGIR 2023).

    E_i = W Q_i + b,   x_u = SASRec(E_{i_1} … E_{i_n}),   s_ui = x_u · E_i

Q_i is the sentence encoder's embedding of title and description. There is no table of items in training: an
item's interactions move the map alone. The network is SASRec's `pre_norm`. `cf.item_init` has no effect.

Departures from the paper: the encoder is frozen; the trained model has E and no map, so that items of later
nights have no vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.sasrec import SASRec
from allmrec.models.item_features import ItemFeatures


class MoRec(SASRec):
    """SASRec whose item table is written from a map of texts."""

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> MoRec:
        """Return the untrained model of `cf` and `cf.morec`."""
        own = settings.morec
        return cls(
            catalogue.num_items,
            catalogue.max_history,
            settings.width,
            own.num_blocks,
            own.num_heads,
            settings.dropout,
        )

    def text_map(self, features: ItemFeatures) -> TextMap:
        """Return the untrained map of the items' texts to E."""
        return TextMap(features["text"], self.width)

    def states_by(self, items_ID: Tensor, histories_BL: Tensor) -> Tensor:
        """[B, L, D]: `position_representations` with E = `items_ID` [I+1, D], gradients included."""
        return torch.func.functional_call(self, {"item_embedding.weight": items_ID}, (histories_BL,))

    def forward(self, histories_BL: Tensor) -> Tensor:
        """[B, L, D]: `position_representations`."""
        return self.position_representations(histories_BL)


class TextMap(nn.Module):
    """The map of the texts Q [I+1, S], row 0 zeros, to E."""

    texts_IS: Tensor

    def __init__(self, texts_IS: Tensor, width: int) -> None:
        super().__init__()
        # The texts follow from the catalogue: checkpoints do not have them.
        self.register_buffer("texts_IS", texts_IS.float(), persistent=False)
        self.map = nn.Linear(texts_IS.shape[1], width)

    def forward(self) -> Tensor:
        """Return E [I+1, D]; padding has zeros."""
        return nn.functional.pad(self.map(self.texts_IS[1:]), (0, 0, 1, 0))


BACKBONE = Backbone(MoRec.of)

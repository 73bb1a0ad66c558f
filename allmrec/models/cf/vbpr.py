"""VBPR with texts in place of images (He & McAuley, AAAI 2016, section 3).

    s_ui = b_i + γ_u · γ_i + θ_u · (M Q_i) + β · Q_i

As a dot product: x_u = [γ_u ; θ_u ; 1], E_i = [γ_i ; M Q_i ; b_i + β · Q_i]. The two halves and the last
column are `cf.width` together. Q_i is the sentence encoder's embedding of title and description, at length 1.
The loss is BPR, with `cf.vbpr.penalty` of the squared γ and θ of the batch, M and β.

Departures from the paper: the model has E alone, and x_u is folded in from it (`factors.py`), the last column
included; the optimizer is Adam.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.factors import FactorModel, Interactions, Learner
from allmrec.models.item_features import ItemFeatures


class VBPR(FactorModel):
    """Item vectors of learned columns, of mapped texts, and of a bias."""

    def __init__(self, num_items: int, width: int, penalty: float) -> None:
        if width < 3:
            raise ValueError(f"cf.width: {width}, expected 3 or more where cf.model is vbpr")
        super().__init__(num_items, width)
        self.penalty = penalty

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> VBPR:
        """Return the untrained model of `cf` and `cf.vbpr`."""
        return cls(catalogue.num_items, settings.width, settings.vbpr.penalty)

    def learner(self, log: Interactions, features: ItemFeatures) -> Learner:
        """Return the tables of users and items, and the map of the texts."""
        return TextFactors(self.item_matrix(), features["text"], log.num_users, self.penalty)


class TextFactors(Learner):
    """γ, θ, b, M and β. `users` has γ_u and θ_u side by side."""

    texts_IS: Tensor

    def __init__(self, items_ID: Tensor, texts_IS: Tensor, num_users: int, penalty: float) -> None:
        super().__init__()
        width = items_ID.shape[1]
        self.weight = penalty
        text_width = (width - 1) // 2
        own_ID = items_ID[:, : width - 1 - text_width].detach().clone()
        self.users = nn.Embedding(num_users, width - 1)
        self.items = nn.Embedding.from_pretrained(own_ID, freeze=False, padding_idx=0)
        self.bias = nn.Embedding(len(items_ID), 1, padding_idx=0)
        self.map = nn.Linear(texts_IS.shape[1], text_width, bias=False)
        self.text_bias = nn.Linear(texts_IS.shape[1], 1, bias=False)
        # The texts follow from the catalogue: checkpoints do not have them.
        self.register_buffer("texts_IS", nn.functional.normalize(texts_IS.float(), dim=1), persistent=False)
        nn.init.xavier_normal_(self.users.weight)
        nn.init.xavier_normal_(self.map.weight)
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.text_bias.weight)

    def vectors(self, user_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return [γ_u ; θ_u ; 1], [N, D], and [γ_i ; M Q_i ; b_i + β · Q_i], [I+1, D]."""
        users_ND = nn.functional.pad(self.users(user_N), (0, 1), value=1.0)
        bias_I1 = self.bias.weight + self.text_bias(self.texts_IS)
        return users_ND, torch.cat([self.items.weight, self.map(self.texts_IS), bias_I1], dim=1)

    def penalty(self, user_N: Tensor, item_NM: Tensor) -> Tensor:
        """Return λ times the squared vectors of the batch and maps, a scalar.

        It is the mean over N of γ and θ, and the sum of M and β.
        """
        users_N = self.users(user_N).square().sum(dim=1)
        items_N = self.items(item_NM).square().sum(dim=(1, 2))
        maps = self.map.weight.square().sum() + self.text_bias.weight.square().sum()
        return self.weight * ((users_N + items_N).mean() + maps)


BACKBONE = Backbone(VBPR.of, objective="pairs")

"""NCF: two towers over vectors of users and items (after He et al., WWW 2017).

    x_u = MLP_U(p_u),   E_i = MLP_I(v_i),   MLP(z) = W₂ ReLU(W₁ z + b₁) + b₂,   s_ui = x_u · E_i

A-LLMRec's paper names NCF as a backbone with separate embeddings of users and items; its code has none. A
score must be a dot product there, which the paper's MLP over both vectors is not. The loss is the paper's
binary cross-entropy with four negatives of each pair. `cf.dropout` is that of the hidden layers.

Departures from both papers: the model has E alone, the towers' output. x_u is folded in from it
(`factors.py`).
"""

from __future__ import annotations

from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.factors import FactorModel, Interactions, Learner
from allmrec.models.cf.mf import Tables
from allmrec.models.item_features import ItemFeatures


class NCF(FactorModel):
    """Item vectors that a tower made of learned ones."""

    def __init__(self, num_items: int, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__(num_items, width)
        self.hidden_width = hidden_width
        self.dropout = dropout

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> NCF:
        """Return the untrained model of `cf` and `cf.ncf`."""
        return cls(catalogue.num_items, settings.width, settings.ncf.hidden_width, settings.dropout)

    def learner(self, log: Interactions, features: ItemFeatures) -> Learner:
        """Return the tables of users and items, and their towers."""
        return Towers(self.item_matrix(), log.num_users, self.hidden_width, self.dropout)


class Towers(Tables):
    """A vector of every user and item, and a tower for each kind."""

    def __init__(self, items_ID: Tensor, num_users: int, hidden_width: int, dropout: float) -> None:
        super().__init__(items_ID, num_users, penalty=0.0)
        width = items_ID.shape[1]
        self.user_tower = _tower(width, hidden_width, dropout)
        self.item_tower = _tower(width, hidden_width, dropout)

    def vectors(self, user_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the towers' outputs, [N, D] and [I+1, D]; padding has zeros."""
        users_ND, items_ID = super().vectors(user_N)
        return self.user_tower(users_ND), nn.functional.pad(self.item_tower(items_ID[1:]), (0, 0, 1, 0))


def _tower(width: int, hidden_width: int, dropout: float) -> nn.Sequential:
    """Return the network [N, D] → [N, D] with one hidden layer."""
    return nn.Sequential(
        nn.Linear(width, hidden_width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_width, width)
    )


BACKBONE = Backbone(NCF.of, objective="labelled_pairs")

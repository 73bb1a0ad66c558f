"""MF: matrix factorisation, trained by BPR (Rendle et al., UAI 2009).

    s_ui = p_u · E_i,   loss = −log σ(s_ui − s_uj) + λ (|p_u|² + |E_i|² + |E_j|²)

for the items i that a user had and items j that the user had not. λ is `cf.mf.penalty`, of the batch's
vectors alone.

Departures from the paper: the p_u of training are dropped, and x_u is folded in (`factors.py`); the optimizer
is Adam.
"""

from __future__ import annotations

from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.factors import FactorModel, Interactions, Learner
from allmrec.models.item_features import ItemFeatures


class MF(FactorModel):
    """Item vectors that were learned with a vector of every user."""

    def __init__(self, num_items: int, width: int, penalty: float) -> None:
        super().__init__(num_items, width)
        self.penalty = penalty

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> MF:
        """Return the untrained model of `cf` and `cf.mf`."""
        return cls(catalogue.num_items, settings.width, settings.mf.penalty)

    def learner(self, log: Interactions, features: ItemFeatures) -> Learner:
        """Return the tables of users and items."""
        return Tables(self.item_matrix(), log.num_users, self.penalty)


class Tables(Learner):
    """A vector of every user and every item."""

    def __init__(self, items_ID: Tensor, num_users: int, penalty: float) -> None:
        super().__init__()
        self.weight = penalty
        self.users = nn.Embedding(num_users, items_ID.shape[1])
        self.items = nn.Embedding.from_pretrained(items_ID.detach().clone(), freeze=False, padding_idx=0)
        nn.init.xavier_normal_(self.users.weight)

    def vectors(self, user_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of N users [N, D], and the items' table [I+1, D]."""
        return self.users(user_N), self.items.weight

    def penalty(self, user_N: Tensor, item_NM: Tensor) -> Tensor:
        """Return λ times the squared vectors of the batch, a scalar.

        It is the mean over N of the sum over the user and the M items.
        """
        users_N = self.users(user_N).square().sum(dim=1)
        items_N = self.items(item_NM).square().sum(dim=(1, 2))
        return self.weight * (users_N + items_N).mean()


BACKBONE = Backbone(MF.of, objective="pairs")

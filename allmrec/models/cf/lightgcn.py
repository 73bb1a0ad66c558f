"""LightGCN: vectors propagated over the graph of users and items (He et al., SIGIR 2020, section 3).

    e_u^{k+1} = Σ_{i∈N(u)} e_i^k / √(|N(u)| |N(i)|),   e_i^{k+1} likewise,   e = Σ_{k=0…K} e^k / (K + 1)

The graph has an edge for each user and each item that the user had, no self-loops. K is
`cf.lightgcn.num_layers`. The loss is BPR on the final vectors, and λ / 2 of the batch's squared vectors of
layer 0, with λ = `cf.lightgcn.penalty`. Every step propagates anew.

Departures from the paper: the model has the final item vectors alone. x_u is folded in from them
(`factors.py`), so that a night needs neither the graph nor users of the training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.factors import FactorModel, Interactions, Learner
from allmrec.models.cf.mf import Tables
from allmrec.models.item_features import ItemFeatures


class LightGCN(FactorModel):
    """Item vectors that were learned on the graph of users and items."""

    def __init__(self, num_items: int, width: int, num_layers: int, penalty: float) -> None:
        super().__init__(num_items, width)
        self.num_layers = num_layers
        self.penalty = penalty

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> LightGCN:
        """Return the untrained model of `cf` and `cf.lightgcn`."""
        own = settings.lightgcn
        return cls(catalogue.num_items, settings.width, own.num_layers, own.penalty)

    def learner(self, log: Interactions, features: ItemFeatures) -> Learner:
        """Return the tables of layer 0, and their propagation."""
        return Propagation(self.item_matrix(), log, self.num_layers, self.penalty)


class Propagation(Tables):
    """A vector of layer 0 for every user and item, and the graph."""

    users_to_items_UI: Tensor
    items_to_users_IU: Tensor

    def __init__(self, items_ID: Tensor, log: Interactions, num_layers: int, penalty: float) -> None:
        super().__init__(items_ID, log.num_users, penalty / 2)
        self.num_layers = num_layers
        graph_UI = normalised_graph(log, len(items_ID))
        # The graph follows from the log: checkpoints do not have it.
        self.register_buffer("users_to_items_UI", graph_UI, persistent=False)
        self.register_buffer("items_to_users_IU", graph_UI.t().coalesce(), persistent=False)

    def vectors(self, user_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means over the layers: of N users [N, D], and of all items [I+1, D]."""
        user_layers = [self.users.weight]
        item_layers = [self.items.weight]
        for _ in range(self.num_layers):
            user_layers.append(torch.sparse.mm(self.users_to_items_UI, item_layers[-1]))
            item_layers.append(torch.sparse.mm(self.items_to_users_IU, user_layers[-2]))
        return torch.stack(user_layers).mean(dim=0)[user_N], torch.stack(item_layers).mean(dim=0)


def normalised_graph(log: Interactions, num_rows: int) -> Tensor:
    """Return the sparse matrix of the edges' weights, [U, I+1] float32.

    A weight is 1/√(|N(u)| |N(i)|), and `num_rows` is I + 1.
    """
    edges_2N = torch.stack([log.user_N, log.item_N]).unique(dim=1)  # an item that came again is one edge
    user_N, item_N = edges_2N
    degrees_U = torch.bincount(user_N, minlength=log.num_users).double()
    degrees_I = torch.bincount(item_N, minlength=num_rows).double()
    weights_N = (degrees_U[user_N] * degrees_I[item_N]).rsqrt().float()
    return torch.sparse_coo_tensor(edges_2N, weights_N, (log.num_users, num_rows)).coalesce()


BACKBONE = Backbone(LightGCN.of, objective="pairs")

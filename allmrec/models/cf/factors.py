"""CF models of user and item vectors: a user is a set of items, and x_u is folded in from E.

Training learns a vector of every user; a bundle has none. The vector of a history S is the least squares
solution that a night computes from E alone, the user step of implicit matrix factorisation (Hu et al., ICDM
2008, equation 4, in matrices):

    A = α Σ_i E_i E_iᵀ + λ m I,   x_u = (A + Σ_{i∈S} E_i E_iᵀ)⁻¹ Σ_{i∈S} E_i,   s_ui = x_u · E_i

The sums over i are those of the known items, and m is the mean square of the entries of E. α is
UNSEEN_WEIGHT, λ is RIDGE. The model keeps A⁻¹. The order of a history has no effect.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allmrec.models.cf.table import TableModel
from allmrec.models.item_features import ItemFeatures

UNSEEN_WEIGHT = 0.01
"""Weight of an item that a user did not have, relative to one of the history."""
RIDGE = 0.1
"""Penalty of x_u, relative to the mean square of the entries of E."""


@dataclass(frozen=True)
class Interactions:
    """The pairs of a user and an item in training."""

    num_users: int
    user_N: Tensor
    """Numbers of users from 0, [N] int64."""
    item_N: Tensor
    """item_idx, [N] int64."""


class Learner(nn.Module, ABC):
    """The tables and networks from which vectors are learned, in training alone."""

    @abstractmethod
    def vectors(self, user_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of users [N, D], and E [I+1, D] with row 0 zeros.

        `user_N` are their numbers, [N] int64.
        """

    @abstractmethod
    def penalty(self, user_N: Tensor, item_NM: Tensor) -> Tensor:
        """Return the penalty of N users and M items each, a scalar."""


class FactorModel(TableModel):
    """An item table E and the fold-in of a history.

    Over other items (`with_items`) A⁻¹ stays that of the trained ones.
    """

    inverse_DD: Tensor

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__(num_items, width)
        self.draw_items()
        self.register_buffer("inverse_DD", torch.eye(width))

    @abstractmethod
    def learner(self, log: Interactions, features: ItemFeatures) -> Learner:
        """Return the untrained learner. Its item vectors start from the model's."""

    @torch.no_grad()
    def settle(self, matrix_ID: Tensor) -> None:
        """Take over E [I+1, D], row 0 zeros, and compute A⁻¹ of its known items."""
        super().settle(matrix_ID)
        known_KD = matrix_ID[self.known].double()
        scale = known_KD.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
        a_DD = UNSEEN_WEIGHT * known_KD.T @ known_KD
        a_DD.diagonal().add_(RIDGE * scale)
        self.inverse_DD.copy_(torch.linalg.inv(a_DD))

    def position_representations(self, histories_BL: Tensor) -> Tensor:
        """[B, L, D]: x_u of every prefix, zeros at padding and at unknown items."""
        return self._summands(histories_BL).cumsum(dim=1) * (self.visible(histories_BL) > 0)[:, :, None]

    def user_representation(self, histories_BL: Tensor) -> Tensor:
        """x_u: [B, D], the user of all known items; zeros for a history without any."""
        return self._summands(histories_BL).sum(dim=1)

    def _summands(self, histories_BL: Tensor) -> Tensor:
        """Return the summands of x_u, [B, L, D].

        The sum up to a position is x_u of the history up to there.
        With H the rows E of a history, x_u = A⁻¹ Hᵀ (I + H A⁻¹ Hᵀ)⁻¹ 1. Rows of the Cholesky factor of the
        L × L matrix depend on older rows alone, so that one factor has the solutions of all prefixes.
        """
        rows_BLD = self.item_matrix()[self.visible(histories_BL)]
        solved_BLD = rows_BLD @ self.inverse_DD
        identity_LL = torch.eye(rows_BLD.shape[1], device=rows_BLD.device)
        factor_BLL = torch.linalg.cholesky(identity_LL + solved_BLD @ rows_BLD.transpose(1, 2))
        with_ones_BLK = nn.functional.pad(solved_BLD, (0, 1), value=1.0)
        found_BLK = torch.linalg.solve_triangular(factor_BLL, with_ones_BLK, upper=False)
        return found_BLK[:, :, :-1] * found_BLK[:, :, -1:]

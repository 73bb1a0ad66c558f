"""CF models of one item table and a causal network: a state is that of its item and of older ones.

The network gets the visible items of every history at the front, oldest first, and 0 behind them. States look
back only, so that padding and unknown items cannot enter one, and the network needs no mask.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from allmrec.models.cf.table import TableModel


class _States(NamedTuple):
    """The states of a batch's N visible items, and where these lie in its histories."""

    row_N: Tensor
    column_N: Tensor
    is_newest_N: Tensor
    """[N] bool: true at the newest item of a row."""
    states_ND: Tensor


class CausalModel(TableModel):
    """An item table E, shared by input and output, and a network from items to states."""

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__(num_items, width)
        self.draw_items()

    @abstractmethod
    def states(self, items_BM: Tensor) -> Tensor:
        """[B, M, D]: the state after every item of [B, M] int64, M ≥ 1, with 0 behind the items of a row.

        A state depends on its own column and on those before. States at 0 are never read.
        """

    def position_representations(self, histories_BL: Tensor) -> Tensor:
        """[B, L, D]: the state at every position, zeros at padding and at unknown items.

        Each is the user representation of the history up to there.
        """
        found = self._states_of(histories_BL)
        out_BLD = found.states_ND.new_zeros(*histories_BL.shape, self.width)
        return out_BLD.index_put((found.row_N, found.column_N), found.states_ND)

    def user_representation(self, histories_BL: Tensor) -> Tensor:
        """x_u: [B, D], the state at the newest known item, zeros where there is none."""
        found = self._states_of(histories_BL)
        out_BD = found.states_ND.new_zeros(len(histories_BL), self.width)
        return out_BD.index_put((found.row_N[found.is_newest_N],), found.states_ND[found.is_newest_N])

    def _states_of(self, histories_BL: Tensor) -> _States:
        items_BL = self.visible(histories_BL)
        real_BL = items_BL > 0
        num_items_B = real_BL.sum(dim=1)
        row_N, column_N = real_BL.nonzero(as_tuple=True)
        place_N = real_BL.cumsum(dim=1)[row_N, column_N] - 1
        items_BM = items_BL.new_zeros(len(items_BL), max([1, *num_items_B.tolist()]))
        items_BM[row_N, place_N] = items_BL[row_N, column_N]
        states_ND = self.states(items_BM)[row_N, place_N]
        return _States(row_N, column_N, place_N + 1 == num_items_B[row_N], states_ND)

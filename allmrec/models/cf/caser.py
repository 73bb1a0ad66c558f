"""Caser: convolutions over the newest items as an image (Tang & Wang, WSDM 2018, section 3).

The image after an item has the rows E of the newest W = `cf.caser.window` items, oldest first, zeros above
where the history is shorter.

    o   for h = 1 … W: n_h filters of h rows and all D columns, ReLU, the largest value over time  [W n_h]
    õ   n_v filters of W rows and one column                                                       [n_v D]
    z = ReLU(W₁ [õ ; o] + b₁),  x_u = W₂ [z ; p_u] + b₂,  s_ui = x_u · E_i

Departures from the paper: p_u is the mean of E over the whole history, in training too (the paper learns a
vector of every user); the output has the table of the input by W₂, as in RecBole's `caser.py` but without its
last ReLU (the paper has another table, of width 2 D, with a bias of every item); a window predicts one next
item (the paper: the next `T` ones), and all windows of a history are samples of `cf.loss`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.causal import CausalModel


class Caser(CausalModel):
    """Horizontal and vertical convolutions over windows, and two layers that join them with the user."""

    def __init__(
        self, num_items: int, width: int, window: int, num_horizontal: int, num_vertical: int, dropout: float
    ) -> None:
        super().__init__(num_items, width)
        self.window = window
        self.horizontal = nn.ModuleList(
            nn.Conv1d(width, num_horizontal, height) for height in range(1, window + 1)
        )
        self.vertical = nn.Conv1d(1, num_vertical, window)
        self.dropout = nn.Dropout(dropout)
        self.joined = nn.Linear(num_vertical * width + num_horizontal * window, width)
        self.output = nn.Linear(2 * width, width)

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> Caser:
        """Return the untrained model of `cf` and `cf.caser`."""
        own = settings.caser
        return cls(
            catalogue.num_items,
            settings.width,
            own.window,
            own.num_horizontal,
            own.num_vertical,
            settings.dropout,
        )

    def states(self, items_BM: Tensor) -> Tensor:
        """[B, M, D]: x_u after every item of [B, M] int64, with 0 behind the items of a row."""
        embedded_BMD = self.item_embedding(items_BM)
        images_BDT = nn.functional.pad(embedded_BMD.transpose(1, 2), (self.window - 1, 0))
        features_BFM = torch.cat([self._vertical(images_BDT), *self._horizontal(images_BDT)], dim=1)
        z_BMD = self.joined(self.dropout(features_BFM.transpose(1, 2))).relu()
        num_items_M = torch.arange(1, items_BM.shape[1] + 1, device=items_BM.device)
        users_BMD = embedded_BMD.cumsum(dim=1) / num_items_M[:, None]
        return self.output(torch.cat([z_BMD, users_BMD], dim=2))

    def _horizontal(self, images_BDT: Tensor) -> list[Tensor]:
        """Return for each height the largest values of its filters in every window, [B, n_h, M].

        Windows overlap, so that the rows of all of them are columns of `images_BDT`, T = M + W − 1.
        """
        largest = []
        for height, convolution in enumerate(self.horizontal, start=1):
            values_BHT = convolution(images_BDT).relu()
            largest.append(nn.functional.max_pool1d(values_BHT, self.window - height + 1, stride=1))
        return largest

    def _vertical(self, images_BDT: Tensor) -> Tensor:
        """Return the values of the vertical filters at every column of every window, [B, D n_v, M]."""
        batch, width, length = images_BDT.shape
        values_NVM = self.vertical(images_BDT.reshape(batch * width, 1, length))
        return values_NVM.view(batch, -1, values_NVM.shape[-1])


BACKBONE = Backbone(Caser.of)

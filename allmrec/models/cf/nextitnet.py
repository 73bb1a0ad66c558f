"""NextItNet: dilated causal convolutions over the history (Yuan et al., WSDM 2019, section 3).

A residual block of dilation d, the paper's form with two convolutions, at every column t:

    x + ReLU(LN(conv_2d(ReLU(LN(conv_d(x))))))

A convolution of kernel k and dilation d reads the columns t, t − d, …, t − (k − 1) d, and zeros before the
first item. Layer norm is over the D channels of a column. Each of `cf.nextitnet.dilations` is a block, and a
state depends on the newest 1 + Σ 3 (k − 1) d items. x_u = W h_n + b, s_ui = x_u · E_i.

Departures from the paper: the table of the output is that of the input by W and b, as in RecBole's
`nextitnet.py`; the loss is `cf.loss`; embeddings have the dropout `cf.dropout` (0 is the paper's); weights
have no penalty.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.causal import CausalModel


class NextItNet(CausalModel):
    """A residual block of convolutions for every dilation, and a map of the last states."""

    def __init__(
        self, num_items: int, width: int, kernel_size: int, dilations: Sequence[int], dropout: float
    ) -> None:
        super().__init__(num_items, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(ResidualBlock(width, kernel_size, dilation) for dilation in dilations))
        self.output = nn.Linear(width, width)

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> NextItNet:
        """Return the untrained model of `cf` and `cf.nextitnet`."""
        own = settings.nextitnet
        return cls(catalogue.num_items, settings.width, own.kernel_size, own.dilations, settings.dropout)

    def states(self, items_BM: Tensor) -> Tensor:
        """[B, M, D]: W h_t + b after every item of [B, M] int64, with 0 behind the items of a row."""
        embedded_BMD = self.dropout(self.item_embedding(items_BM))
        return self.output(self.blocks(embedded_BMD.transpose(1, 2)).transpose(1, 2))


class ResidualBlock(nn.Module):
    """Two causal convolutions, of the dilation and of twice that, each with a layer norm and a ReLU."""

    def __init__(self, width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.near = CausalConvolution(width, kernel_size, dilation)
        self.near_norm = nn.LayerNorm(width)
        self.far = CausalConvolution(width, kernel_size, 2 * dilation)
        self.far_norm = nn.LayerNorm(width)

    def forward(self, columns_BDM: Tensor) -> Tensor:
        """[B, D, M] → [B, D, M]."""
        near_BDM = _normed(self.near_norm, self.near(columns_BDM)).relu()
        return columns_BDM + _normed(self.far_norm, self.far(near_BDM)).relu()


class CausalConvolution(nn.Module):
    """A dilated convolution with zeros before the first column, so that a column sees older ones alone."""

    def __init__(self, width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.num_zeros = (kernel_size - 1) * dilation
        self.convolution = nn.Conv1d(width, width, kernel_size, dilation=dilation)

    def forward(self, columns_BDM: Tensor) -> Tensor:
        """[B, D, M] → [B, D, M]."""
        return self.convolution(nn.functional.pad(columns_BDM, (self.num_zeros, 0)))


def _normed(norm: nn.LayerNorm, columns_BDM: Tensor) -> Tensor:
    """Return [B, D, M] with every column normed."""
    return norm(columns_BDM.transpose(1, 2)).transpose(1, 2)


BACKBONE = Backbone(NextItNet.of)

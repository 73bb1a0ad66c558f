"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018, §III).

As published: learned position embeddings, causal self-attention and point-wise feed-forward blocks, item
embeddings shared between input and output, scaled by √D at the input. Deviations: layer norms before each
sub-layer and at the end (pre-norm, as the authors' code does for the query) on all of query, key and value;
no dropout on the attention weights (so that attention is one fused kernel); positions are counted from the
newest item, so that they do not depend on the padding; everything but attention is computed on real items
only (sequences are short, most of [B, L] is padding).
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from allmrec.models.cf.base import CFModel


class RealItems(NamedTuple):
    """Where the N real items of a batch lie: [N] int64 each, and attention's mask [B, 1, L, L] bool."""

    row_N: Tensor
    column_N: Tensor
    from_newest_N: Tensor
    mask_B1LL: Tensor


class SASRec(CFModel):
    """Item and position embeddings, `num_blocks` attention blocks, a final layer norm.

    Scores are x_u · E_i.
    """

    def __init__(
        self, num_items: int, max_history: int, width: int, num_blocks: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__(num_items, width)
        if width % num_heads:
            raise ValueError(f"cf.num_heads: {num_heads}, expected a divisor of cf.width ({width})")
        self.max_history = max_history
        self.item_embedding = nn.Embedding(num_items + 1, width, padding_idx=0)
        self.position_embedding = nn.Embedding(max_history, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_blocks))
        self.final_norm = nn.LayerNorm(width)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    def with_items(self, matrix: Tensor) -> SASRec:
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

    def item_matrix(self) -> Tensor:
        """E: [I+1, D]; row 0 is zeros (the padding row gets no gradient)."""
        return self.item_embedding.weight

    def position_representations(self, histories_BL: Tensor) -> Tensor:
        """[B, L, D]: the state at every position, zeros at padding and at unknown items.

        L may be anything; the newest `max_history` count.
        """
        real, states_ND = self.states(histories_BL)
        out_BLD = states_ND.new_zeros(*histories_BL.shape, self.width)
        return out_BLD.index_put(
            (real.row_N, real.column_N + histories_BL.shape[1] - real.mask_B1LL.shape[-1]), states_ND
        )

    def user_representation(self, histories_BL: Tensor) -> Tensor:
        """x_u: [B, D], the state at the newest known item, zeros where there is none."""
        real, states_ND = self.states(histories_BL)
        newest = real.from_newest_N == 0
        out_BD = states_ND.new_zeros(len(histories_BL), self.width)
        return out_BD.index_put((real.row_N[newest],), states_ND[newest])

    def states(self, histories_BL: Tensor) -> tuple[RealItems, Tensor]:
        """Return where the batch's N real items lie, and their states [N, D].

        Columns are those of the histories cut to the longest one.
        """
        items_BL = _cut(self.visible(histories_BL)[:, -self.max_history :])
        real = _real_items(items_BL)
        embedded_ND = self.item_embedding(items_BL[real.row_N, real.column_N]) * math.sqrt(self.width)
        hidden_ND = self.dropout(embedded_ND + self.position_embedding(real.from_newest_N))
        for block in self.blocks:
            hidden_ND = block(hidden_ND, real)
        return real, self.final_norm(hidden_ND)


class Block(nn.Module):
    """Causal self-attention and a point-wise feed-forward network of width D.

    Each is normed before, with dropout and a residual.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_ND: Tensor, real: RealItems) -> Tensor:
        """[N, D] → [N, D]."""
        hidden_ND = hidden_ND + self.dropout(
            self.attended(self.attention(self.attention_norm(hidden_ND), real))
        )
        return hidden_ND + self.dropout(
            self.outer(self.dropout(nn.functional.relu(self.inner(self.forward_norm(hidden_ND)))))
        )

    def attention(self, normed_ND: Tensor, real: RealItems) -> Tensor:
        """[N, D] → [N, D]: every item looks at itself and the older items of its own history."""
        batch, length, width = len(real.mask_B1LL), real.mask_B1LL.shape[-1], normed_ND.shape[1]
        where = (real.row_N, real.column_N)
        query, key, value = (
            normed_ND.new_zeros(batch, length, width)
            .index_put(where, part_ND)
            .view(batch, length, self.num_heads, -1)
            .transpose(1, 2)
            for part_ND in self.query_key_value(normed_ND).chunk(3, dim=1)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=real.mask_B1LL)
        return attended.transpose(1, 2)[where].reshape(-1, width)


def _cut(items_BL: Tensor) -> Tensor:
    """Return [B, L] without the leading columns in which no history has an item (at least one stays)."""
    used = items_BL.any(dim=0).nonzero()
    first = int(used[0]) if len(used) else items_BL.shape[1] - 1
    return items_BL[:, first:]


def _real_items(items_BL: Tensor) -> RealItems:
    """Return where items [B, L] int64 are not padding (0), and who may look where."""
    real_BL = items_BL > 0
    length = items_BL.shape[1]
    from_newest_BL = real_BL.flip(1).cumsum(1).flip(1) - 1
    row_N, column_N = real_BL.nonzero(as_tuple=True)
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=items_BL.device).tril()
    # Padding looks at itself: a row that may look nowhere would be NaN.
    itself_LL = torch.eye(length, dtype=torch.bool, device=items_BL.device)
    mask_B1LL = ((causal_LL & real_BL[:, None, :]) | itself_LL)[:, None]
    return RealItems(row_N, column_N, from_newest_BL[row_N, column_N], mask_B1LL)

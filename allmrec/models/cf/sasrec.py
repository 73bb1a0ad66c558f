"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018, §III).

Learned position embeddings, causal self-attention and point-wise feed-forward blocks, a final layer norm.
Item embeddings are shared between input and output, and scaled by √D at the input. There are two forms:

| | `pre_norm` | `authors` (A-LLMRec's code, ghdtjr/A-LLMRec at e216bbc) |
|---|---|---|
| query, key, value | of the normed state | query of the normed state, key and value of the state itself |
| added to the attention's output | the state | the normed state |
| added to the feed-forward's output | the state | the normed state |
| padding | hidden from attention | a key and a value of its own, the biases of their projections |
| dropout of attention | on its output | on its weights |
| layer norm's ε | 1e-5 | 1e-8 |
| initial weights | normal(.02) embeddings, torch's default elsewhere | Xavier-normal matrices |

`pre_norm` is x + f(LN x), the SASRec paper's equation. In both forms positions are counted from the newest
item, so that they do not depend on the padding, and everything but attention is computed on real items only:
sequences are short, most of [B, L] is padding.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue
from allmrec.models.cf.table import EMBEDDING_STD, TableModel


class RealItems(NamedTuple):
    """Where the N real items of a batch lie: [N] int64 each, and attention's mask [B, 1, L, L] bool."""

    row_N: Tensor
    column_N: Tensor
    """Their columns in the histories."""
    place_N: Tensor
    """Their columns in attention."""
    from_newest_N: Tensor
    mask_B1LL: Tensor


class SASRec(TableModel):
    """Item and position embeddings, `num_blocks` attention blocks, a final layer norm.

    Scores are x_u · E_i.
    """

    def __init__(
        self,
        num_items: int,
        max_history: int,
        width: int,
        num_blocks: int,
        num_heads: int,
        dropout: float,
        network: Literal["pre_norm", "authors"] = "pre_norm",
    ) -> None:
        super().__init__(num_items, width)
        if width % num_heads:
            raise ValueError(f"cf.sasrec.num_heads: {num_heads}, expected a divisor of cf.width ({width})")
        self.max_history = max_history
        self.is_authors = network == "authors"
        block = AuthorsBlock if self.is_authors else Block
        self.position_embedding = nn.Embedding(max_history, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(block(width, num_heads, dropout) for _ in range(num_blocks))
        self.final_norm = nn.LayerNorm(width, eps=block.epsilon)
        for table in (self.item_embedding, self.position_embedding):
            if self.is_authors:
                nn.init.xavier_normal_(table.weight)
            else:
                nn.init.normal_(table.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    @classmethod
    def of(cls, settings: CFConfig, catalogue: Catalogue) -> SASRec:
        """Return the untrained model of `cf` and `cf.sasrec`."""
        own = settings.sasrec
        return cls(
            catalogue.num_items,
            catalogue.max_history,
            settings.width,
            own.num_blocks,
            own.num_heads,
            settings.dropout,
            own.network,
        )

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

        Columns are those of the histories cut to the longest one, or, by `authors`, padded to `max_history`.
        """
        items_BL = self.visible(histories_BL)[:, -self.max_history :]
        if self.is_authors:
            items_BL = nn.functional.pad(items_BL, (self.max_history - items_BL.shape[1], 0))
        else:
            items_BL = _cut(items_BL)
        real = _real_items(items_BL, sees_padding=self.is_authors)
        embedded_ND = self.item_embedding(items_BL[real.row_N, real.column_N]) * math.sqrt(self.width)
        hidden_ND = self.dropout(embedded_ND + self.position_embedding(real.from_newest_N))
        for block in self.blocks:
            hidden_ND = block(hidden_ND, real)
        return real, self.final_norm(hidden_ND)


class Block(nn.Module):
    """Causal self-attention and a point-wise feed-forward network of width D.

    Each is normed before, with dropout and a residual.
    """

    epsilon = 1e-5

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width, eps=self.epsilon)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width, eps=self.epsilon)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_ND: Tensor, real: RealItems) -> Tensor:
        """[N, D] → [N, D]."""
        query_ND, key_ND, value_ND = self.query_key_value(self.attention_norm(hidden_ND)).chunk(3, dim=1)
        nothing_D = query_ND.new_zeros(query_ND.shape[1])
        attended_ND = self.attention(query_ND, (key_ND, nothing_D), (value_ND, nothing_D), real)
        hidden_ND = hidden_ND + self.dropout(self.attended(attended_ND))
        return hidden_ND + self.feed_forward(self.forward_norm(hidden_ND))

    def feed_forward(self, normed_ND: Tensor) -> Tensor:
        """[N, D] → [N, D], each layer's output with dropout."""
        return self.dropout(self.outer(self.dropout(nn.functional.relu(self.inner(normed_ND)))))

    def attention(
        self,
        query_ND: Tensor,
        key: tuple[Tensor, Tensor],
        value: tuple[Tensor, Tensor],
        real: RealItems,
        dropout: float = 0.0,
    ) -> Tensor:
        """[N, D] → [N, D]: every item looks at itself and at what the mask shows it of its own history.

        `key` and `value` are those of the items [N, D], and the one of padding [D]; `dropout` is that of the
        attention weights.
        """
        batch = len(real.mask_B1LL)
        length = real.mask_B1LL.shape[-1]
        width = query_ND.shape[1]
        where = (real.row_N, real.place_N)
        query, keys, values = (
            padding_D.expand(batch, length, width)
            .index_put(where, part_ND)
            .view(batch, length, self.num_heads, -1)
            .transpose(1, 2)
            for part_ND, padding_D in ((query_ND, query_ND.new_zeros(width)), key, value)
        )
        attended = nn.functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=real.mask_B1LL, dropout_p=dropout
        )
        return attended.transpose(1, 2)[where].reshape(-1, width)


class AuthorsBlock(Block):
    """The block of the authors' code; the module's docstring says what differs."""

    epsilon = 1e-8

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__(width, num_heads, dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.attended.bias)

    def forward(self, hidden_ND: Tensor, real: RealItems) -> Tensor:
        """[N, D] → [N, D]."""
        normed_ND = self.attention_norm(hidden_ND)
        projection = self.query_key_value
        weights = projection.weight.chunk(3)
        biases = projection.bias.chunk(3)
        query_ND, key_ND, value_ND = (
            nn.functional.linear(read_ND, weight, bias)
            for read_ND, weight, bias in zip((normed_ND, hidden_ND, hidden_ND), weights, biases, strict=True)
        )
        # The state at padding is 0, so that its key and its value are the biases.
        attended_ND = self.attention(
            query_ND,
            (key_ND, biases[1]),
            (value_ND, biases[2]),
            real,
            self.dropout.p if self.training else 0.0,
        )
        normed_ND = self.forward_norm(normed_ND + self.attended(attended_ND))
        return normed_ND + self.feed_forward(normed_ND)


def _cut(items_BL: Tensor) -> Tensor:
    """Return [B, L] without the leading columns in which no history has an item (at least one stays)."""
    used = items_BL.any(dim=0).nonzero()
    first = int(used[0]) if len(used) else items_BL.shape[1] - 1
    return items_BL[:, first:]


def _real_items(items_BL: Tensor, sees_padding: bool) -> RealItems:
    """Return where items [B, L] int64 are not padding (0), and who may look where.

    With `sees_padding` a history's items stand in attention's last columns, behind all of its padding.
    """
    real_BL = items_BL > 0
    length = items_BL.shape[1]
    from_newest_BL = real_BL.flip(1).cumsum(1).flip(1) - 1
    row_N, column_N = real_BL.nonzero(as_tuple=True)
    from_newest_N = from_newest_BL[row_N, column_N]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=items_BL.device).tril()
    if sees_padding:
        mask_B1LL = causal_LL.expand(len(items_BL), 1, length, length)
        return RealItems(row_N, column_N, length - 1 - from_newest_N, from_newest_N, mask_B1LL)
    # Padding looks at itself: a row that may look nowhere would be NaN.
    itself_LL = torch.eye(length, dtype=torch.bool, device=items_BL.device)
    mask_B1LL = ((causal_LL & real_BL[:, None, :]) | itself_LL)[:, None]
    return RealItems(row_N, column_N, column_N, from_newest_N, mask_B1LL)


BACKBONE = Backbone(SASRec.of)

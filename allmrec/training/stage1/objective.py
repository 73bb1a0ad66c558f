"""The objective of stage 1 (A-LLMRec, KDD 2024, section 4.1).

    L = L_matching + α·L_item-reconstruction + β·L_text-reconstruction + γ·L_recommendation

For every sequence: x_u of all items but the last, the last item as the positive, one uniformly sampled
negative. As in the authors' code every term is its mean over the positives plus its mean over the negatives:
of L_matching and the reconstructions each mean is over batch and width, of L_recommendation over the batch.
So 2·MSE over both stands beside softplus(−s⁺) + softplus(s⁻). InfoNCE (ours) is one mean over the batch.
`stage1.positions: all` does so at every position (A-LLMRec_all).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from allmrec.config import Stage1Config
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import CFModel
from allmrec.training.losses import info_nce, mse_of_both, recommendation_loss
from allmrec.training.torch_settings import with_dropout
from allmrec.training.uniform_negatives import never_had


class Pairs(NamedTuple):
    """What one step learns from: N user states, each with the next item and a sampled one."""

    x_ND: Tensor
    """[N, D] float: user representations x_u."""
    positives_N: Tensor
    """[N] int64: item_idx of the next items."""
    negatives_N: Tensor
    """[N] int64: item_idx of the sampled items."""


class Stage1Objective:
    """The loss of a batch of sequences.

    `texts` takes item_idx [N] int64 and returns their text embeddings Q_i [N, S] float, with gradients where
    the encoder is tuned.
    """

    def __init__(
        self,
        networks: AlignmentNetworks,
        cf: CFModel,
        texts: Callable[[Tensor], Tensor],
        settings: Stage1Config,
    ) -> None:
        self.networks = networks
        self.cf = cf
        self.texts = texts
        self.settings = settings
        self.known_items_K = cf.known.nonzero().squeeze(1)
        with torch.no_grad():
            self.E_ID = cf.item_matrix().detach().clone()

    def loss(self, sequences_BL: Tensor) -> Tensor:
        """Return the weighted sum of the terms, a scalar; sequences [B, L] int64 have at least two items."""
        pairs = self.pairs(sequences_BL)
        # Encoding texts is the cost: an item that occurs twice is encoded once; `rows_2N` repeats it.
        items_M, rows_2N = torch.unique(
            torch.cat([pairs.positives_N, pairs.negatives_N]), return_inverse=True
        )
        terms = self.terms(self.E_ID[items_M], self.texts(items_M), rows_2N, pairs.x_ND)
        return torch.stack(list(terms.values())).sum()

    def terms(self, E_MD: Tensor, Q_MS: Tensor, rows_2N: Tensor, x_ND: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms that are switched on, scalars by name.

        | input | shape |
        |---|---|
        | E_MD, Q_MS | [M, D], [M, S] float: CF and text embeddings of the M distinct items |
        | rows_2N | [2N] int64: which of their rows the N positives and then the N negatives are |
        | x_ND | [N, D] float: user representations |
        """
        settings = self.settings
        networks = self.networks
        e_MJ = networks.item_encoder(E_MD)
        q_MJ = networks.text_projector(Q_MS)
        decoded_MD = networks.item_decoder(e_MJ)
        positive_ND, negative_ND = decoded_MD[rows_2N].chunk(2)
        # The text is a target here, without a gradient as in the authors' code: a tuned encoder would lower
        # this loss the easy way, by giving all texts the same embedding.
        terms = {
            "item_reconstruction": settings.item_reconstruction
            * mse_of_both(decoded_MD[rows_2N], E_MD[rows_2N]),
            "text_reconstruction": settings.text_reconstruction
            * mse_of_both(networks.text_decoder(q_MJ)[rows_2N], Q_MS[rows_2N].detach()),
            "recommendation": settings.recommendation
            * recommendation_loss(x_ND, positive_ND, negative_ND, settings.recommendation_score),
        }
        if settings.matching == "mse":
            terms["matching"] = mse_of_both(e_MJ[rows_2N], q_MJ[rows_2N])
        elif settings.matching == "infonce":
            centre = networks.centre
            terms["matching"] = info_nce(
                e_MJ - centre, q_MJ - centre, Q_MS, settings.temperature, settings.filter_threshold
            )
        return terms

    def pairs(self, sequences_BL: Tensor) -> Pairs:
        """Return states, next items and negatives of the last position or of all; sequences [B, L] int64."""
        inputs_BL = sequences_BL[:, :-1]
        with torch.no_grad(), with_dropout(self.cf, self.settings.cf_dropout):
            if self.settings.positions == "last":
                x_ND = self.cf.user_representation(inputs_BL)
                positives_N = sequences_BL[:, -1]
                histories_NL = sequences_BL
            else:
                real_BL = inputs_BL > 0
                x_ND = self.cf.position_representations(inputs_BL)[real_BL]
                positives_N = sequences_BL[:, 1:][real_BL]
                histories_NL = sequences_BL[real_BL.nonzero(as_tuple=True)[0]]
        return Pairs(x_ND, positives_N, never_had(histories_NL, self.known_items_K))

"""The signals that a catalogue can be searched by.

    cf         x_u · E_i; an item that the CF model does not know has the mean of those it knows
    alignment  cosine of O_u and O_i, the trained projections
    text       cosine of the mean text of the history with the item's
    words      title words in common with the newest items of the history (`allmrec.models.links`)
    together   links by users to these items

The first three are products of users' and items' vectors, the others are sparse matrices. The scores of one
signal are brought to a standard deviation of 1 over each user's catalogue, so that signals of any scale can
be added: `allmrec.training.order.fit_retrieval` fits their weights. The deviation of a product follows from
the covariance of the items, without a users × items matrix: Var_i(u · v_i) = uᵀ Cov(v) u.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from allmrec.ranking.search_weights import SearchWeights
from allmrec.scoring.user_vectors import UserEncoder, UserVectors

BY_VECTORS = ("cf", "alignment", "text")
BY_LINKS = ("words", "together")
PRIOR = {"cf": 1.0, "alignment": 0.5, "text": 0.1, "words": 0.1, "together": 0.05}
"""Weights before any user was looked at: about what was fitted on two logs (tests/bench/README.md)."""
UNFITTED = SearchWeights({name: PRIOR[name] for name in BY_VECTORS}, 0.0, 0)
"""What bundles search with that were trained before there were such weights."""

Pair = tuple[Tensor, Tensor]
"""Users [B, K] and items [I+1, K] float32."""


class Signals:
    """The signals of one bundle's items."""

    def __init__(self, encoder: UserEncoder) -> None:
        known_I1 = torch.from_numpy(encoder.known).to(encoder.cf_items.device)[:, None]
        num_known = known_I1.sum().clamp(min=1)
        mean_D = (encoder.cf_items * known_I1).sum(dim=0) / num_known
        self.items = {
            "cf": (encoder.cf_items - mean_D) * known_I1,
            "alignment": encoder.alignment_items,
            "text": encoder.text_items,
        }
        self.links = encoder.links
        self._unknown_I1 = (~known_I1).float()
        self._covariances = {
            "cf": self.items["cf"].T @ self.items["cf"] / num_known,
            **{name: torch.cov(self.items[name][1:].T, correction=0) for name in ("alignment", "text")},
        }

    def users(self, vectors: UserVectors, name: str) -> Tensor:
        """Return the users' side of a signal, [B, K] float32; zeros where nothing is known of the history."""
        values_BK = {"cf": vectors.cf, "alignment": vectors.alignment, "text": vectors.text}[name]
        variance_B = ((values_BK @ self._covariances[name]) * values_BK).sum(dim=1)
        return values_BK * variance_B.clamp(min=1e-12).rsqrt()[:, None] * (variance_B > 1e-12)[:, None]

    @property
    def names(self) -> tuple[str, ...]:
        """The signals that the bundle has."""
        return BY_VECTORS if self.links is None else BY_VECTORS + BY_LINKS

    def linked(self, vectors: UserVectors, name: str) -> sparse.csr_matrix:
        """Return a signal of `BY_LINKS`, [B, I+1] float32, empty where the history has no links.

        Raises ValueError where the bundle has no links.
        """
        if self.links is None or vectors.recent is None:
            raise ValueError(f"signal {name}: the bundle has no links between items")
        signal_BI = self.links.signal(name, vectors.recent)
        num_items = signal_BI.shape[1] - 1
        mean_B = signal_BI.sum(axis=1).A1 / num_items
        square_B = signal_BI.multiply(signal_BI).sum(axis=1).A1 / num_items
        variance_B = square_B - mean_B**2
        scale_B = np.where(variance_B > 1e-12, 1.0 / np.sqrt(np.maximum(variance_B, 1e-12)), 0.0)
        scaled_BI = sparse.diags(scale_B.astype(np.float32)) @ signal_BI
        return sparse.csr_matrix(scaled_BI)

    def weighted_links(self, vectors: UserVectors, weights: SearchWeights) -> sparse.csr_matrix | None:
        """Return the weighted sum of the signals of `BY_LINKS`, [B, I+1] float32; None without weights."""
        weighted = [
            weight * self.linked(vectors, name)
            for name, weight in weights.weights.items()
            if weight and name in BY_LINKS
        ]
        return sum(weighted[1:], weighted[0]) if weighted else None

    def weighted(self, vectors: UserVectors, weights: SearchWeights) -> dict[str, Pair]:
        """Return pairs whose products, with `weighted_links`, add up to the score of every item, by signal.

        `unknown` is the offset of what the CF model does not know. Without it and `cf` every item is judged
        by the other signals alone.
        """
        pairs = {
            name: (weight * self.users(vectors, name), self.items[name])
            for name, weight in weights.weights.items()
            if weight and name in BY_VECTORS
        }
        if weights.unknown_offset:
            has_cf_B1 = torch.from_numpy(vectors.has_cf).to(self._unknown_I1)[:, None]
            pairs["unknown"] = (weights.unknown_offset * has_cf_B1, self._unknown_I1)
        return pairs

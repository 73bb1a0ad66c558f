"""The blend: a weighted sum of parts, z-scored within each user's candidates.

`allmrec.training.order.fit_blend` fits the weights.

Each part is z-scored over the candidates that have it (a part without spread is 0 for all); a candidate that
the CF model has not seen has z = 0 there and a fitted offset instead:

    score = Σ_part weight[part] · z_part + unknown_offset · [not seen by the CF model]
    probability = recall · softmax(score / temperature)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from allmrec.ranking.candidate_lists import CandidateLists


@dataclass(frozen=True)
class BlendWeights:
    """A fitted blend: a calibrated ranker."""

    weights: dict[str, float]
    """Part → weight ≥ 0; they sum to 1 unless all are 0."""
    unknown_offset: float
    """Added for a candidate without a CF score in a list where others have one."""
    temperature: float
    """Positive; one for the whole blend."""
    num_users: int
    """Users the weights were fitted on."""
    part_temperatures: dict[str, float] = field(default_factory=dict)
    """Part → temperature of its raw score, for an order by this part alone."""
    recall: float = 1.0
    """Share of users whose next item retrieval finds; 1 where it was not measured (version 0.1.0)."""

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return a score per candidate, [B, C] float64: finite, −inf beyond a user's candidates."""
        features_BCP = blend_features(lists, tuple(self.weights))
        return np.where(
            lists.present, features_BCP @ np.array([*self.weights.values(), self.unknown_offset]), -np.inf
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> BlendWeights:
        """Return the weights of a JSON object made by `to_json`."""
        return cls(**fields)


def blend_features(lists: CandidateLists, parts: Sequence[str]) -> np.ndarray:
    """Return what the blend weighs, [B, C, P + 1] float64: P z-scores, and 1 for unknown to the CF model."""
    cf_BC = lists.part("cf")
    unknown_BC = np.isnan(cf_BC) & lists.present & ~np.isnan(cf_BC).all(axis=1, keepdims=True)
    return np.stack([*(zscores(lists.part(part)) for part in parts), unknown_BC.astype(np.float64)], axis=-1)


def zscores(values_BC: np.ndarray) -> np.ndarray:
    """Return (value − mean) / std within each row over its values, [B, C] float64.

    0 for missing ones (NaN) and rows without spread.
    """
    known_BC = ~np.isnan(values_BC)
    num_known_B1 = np.maximum(known_BC.sum(axis=1, keepdims=True), 1)
    mean_B1 = np.where(known_BC, values_BC, 0.0).sum(axis=1, keepdims=True) / num_known_B1
    centred_BC = np.where(known_BC, values_BC - mean_B1, 0.0)
    std_B1 = np.sqrt((centred_BC**2).sum(axis=1, keepdims=True) / num_known_B1)
    flat_B1 = std_B1 <= 1e-9 * (1.0 + np.abs(mean_B1))  # equal but for rounding
    return np.where(flat_B1, 0.0, centred_BC / np.where(flat_B1, 1.0, std_B1))

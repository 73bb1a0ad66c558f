"""The served order as a blend of the parts: CF, text similarity, alignment score and the LLM (design §5).

Each part is z-scored within the user's candidates, over those that have it (a part without spread is 0 for all); a candidate that the CF
model never saw has z = 0 there and a fitted offset instead. The weights maximise the likelihood of the true item under
softmax(score / temperature) over the candidates, are never negative (a part that misleads is left out), and are shrunk towards a prior:

    min_v  Σ_u −log softmax(f_u v)[target_u] + SHRINK/2 · |v − prior|²      v_part ≥ 0

so that few users hardly move it. v is then split into weights that sum to 1 and a temperature; the temperature is set on users that the
weights were not fitted on (two halves, crosswise), so that the probabilities are calibrated and not as sure as the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from allmrec import metrics, seeds

COLUMN_OF_PART = {
    "cf": "cf_scores",
    "text": "text_scores",
    "alignment": "alignment_scores",
    "llm": "llm_choice_scores",
}

PRIOR = {"cf": 1.0, "text": 0.3, "alignment": 0.5, "llm": 0.1}
"""Weights (temperature included) before any user was looked at: about what the measured blends ended near."""

SHRINK = 50.0
"""How many users the prior is worth, roughly: a z-scored part tells at most 1 per user about its weight (Fisher information)."""

TEMPERATURES = np.exp(np.linspace(-4.0, 4.0, 801))
"""Grid on which a temperature is sought."""


@dataclass(frozen=True)
class BlendWeights:
    """
    ""score = Σ_part weights[part] · z_part (+ unknown_offset where the CF model never saw the item); probability = softmax(score / temperature)."""

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

    def scores(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the score of every candidate, float64 [B, C], −inf beyond a user's candidates; always finite within them."""
        features, present = features_of(frame, tuple(self.weights))
        return np.where(present, features @ np.array([*self.weights.values(), self.unknown_offset]), -np.inf)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> BlendWeights:
        """Return the weights of a JSON object made by `to_json`."""
        return cls(**found)


def part_matrix(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column of lists as float64 [B, C]: NaN where a value is missing or not finite, and beyond a user's candidates."""
    counts = frame["candidates"].map(len).to_numpy(dtype=np.int64)
    present = np.arange(counts.max(initial=0)) < counts[:, None]
    lists = [
        [None] * count if values is None else values
        for values, count in zip(frame[column], counts, strict=True)
    ]
    matrix = np.full(present.shape, np.nan)
    matrix[present] = np.fromiter(
        (np.nan if value is None else value for value in chain.from_iterable(lists)), dtype=np.float64
    )
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def zscores(values_BC: np.ndarray) -> np.ndarray:
    """Return (value − mean) / std within each row over its values; 0 for missing ones (NaN) and for rows without spread."""
    there = ~np.isnan(values_BC)
    number = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = np.where(there, values_BC, 0.0).sum(axis=1, keepdims=True) / number
    centred = np.where(there, values_BC - mean, 0.0)
    std = np.sqrt((centred**2).sum(axis=1, keepdims=True) / number)
    flat = std <= 1e-9 * (1.0 + np.abs(mean))  # equal but for rounding
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, std))


def features_of(frame: pd.DataFrame, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (features float64 [B, C, len(parts) + 1], present bool [B, C]): z-scores by part, "
    "and 1 for an item unknown to the CF model."""
    counts = frame["candidates"].map(len).to_numpy(dtype=np.int64)
    present = np.arange(counts.max(initial=0)) < counts[:, None]
    cf_BC = part_matrix(frame, COLUMN_OF_PART["cf"])
    unknown = np.isnan(cf_BC) & present & ~np.isnan(cf_BC).all(axis=1, keepdims=True)
    columns = [zscores(part_matrix(frame, COLUMN_OF_PART[part])) for part in parts]
    return np.stack([*columns, unknown.astype(np.float64)], axis=-1), present


def fit_blend(
    frame: pd.DataFrame,
    targets: Sequence[str],
    with_llm: bool,
    prior: BlendWeights | None = None,
    seed: int = 0,
) -> tuple[BlendWeights, dict[str, float]]:
    """Fit the weights on scored candidates that hold the true item, and report how each part and the blend order them.

    Parameters
    ----------
    frame: a row a user, as `Scorer.score` returns it. Users without the target among at least two candidates are left out, and with_llm
        those whom the LLM did not score.
    targets: the true item's id, a user.
    prior: weights to shrink towards (those without the LLM, say); None: `PRIOR`. Without any user the prior is returned.

    Returns the weights and figures: Hit@1 and NDCG@10 of `<part>` alone, of `blend` (crosswise: each half ordered by weights from the
    other) and of `blend_fitted` (on the users it was fitted on), `num_users`, and each `weight_<part>` and the temperature. Without users
    only num_users.
    """
    parts = tuple(part for part in PRIOR if with_llm or part != "llm")
    start = _start(parts, prior)
    usable = _usable(frame, targets, with_llm)
    frame, kept = (
        frame[usable].reset_index(drop=True),
        [target for target, use in zip(targets, usable, strict=True) if use],
    )
    if not kept:
        return _weights(parts, start, 1.0, 0, {}), {"num_users": 0.0}
    column = np.array(
        [list(ids).index(target) for ids, target in zip(frame["candidates"], kept, strict=True)]
    )
    features, present = features_of(frame, parts)
    fitted = _fit(features, present, column, start)
    half = np.array([seeds.derive(seed, "blend", user) % 2 for user in frame["user_id"]])
    crosswise = np.empty(present.shape)
    for side in (0, 1):
        mine, other = half == side, half != side
        crosswise[mine] = features[mine] @ _fit(features[other], present[other], column[other], start)
    crosswise[~present] = -np.inf
    alone = {part: filled(part_matrix(frame, COLUMN_OF_PART[part]), present) for part in parts}
    part_temperatures = {part: _temperature(alone[part], column) for part in parts if part in ("cf", "llm")}
    blend = _weights(parts, fitted, _temperature(crosswise, column), len(kept), part_temperatures)
    figures: dict[str, float] = {"num_users": float(len(kept)), "temperature": blend.temperature}
    figures |= {f"weight_{part}": weight for part, weight in blend.weights.items()}
    fitted_scores = np.where(present, features @ fitted, -np.inf)
    for name, scores in {**alone, "blend": crosswise, "blend_fitted": fitted_scores}.items():
        ranks = metrics.ranks_of_target(scores, column)
        figures |= {
            f"{name}_Hit@1": metrics.mean(metrics.hit(ranks, 1)),
            f"{name}_NDCG@10": metrics.mean(metrics.ndcg(ranks, 10)),
        }
    return blend, figures


def filled(values_BC: np.ndarray, present_BC: np.ndarray) -> np.ndarray:
    """Return the values with missing ones 1 below the row's lowest (0 where a row has none), −inf beyond the candidates."""
    lowest = np.where(np.isnan(values_BC), np.inf, values_BC).min(axis=1, keepdims=True, initial=np.inf)
    below = np.where(np.isfinite(lowest), lowest - 1.0, 0.0)
    return np.where(present_BC, np.where(np.isnan(values_BC), below, values_BC), -np.inf)


def _usable(frame: pd.DataFrame, targets: Sequence[str], with_llm: bool) -> np.ndarray:
    usable = np.array(
        [
            len(ids) > 1 and target in list(ids)
            for ids, target in zip(frame["candidates"], targets, strict=True)
        ],
        dtype=bool,
    )
    if with_llm and len(frame):
        usable &= ~np.isnan(part_matrix(frame, COLUMN_OF_PART["llm"])).all(axis=1)
    return usable


def _start(parts: Sequence[str], prior: BlendWeights | None) -> np.ndarray:
    if prior is None:
        return np.array([*(PRIOR[part] for part in parts), 0.0])
    scaled = [
        prior.weights[part] / prior.temperature if part in prior.weights else PRIOR[part] for part in parts
    ]
    return np.array([*scaled, prior.unknown_offset / prior.temperature])


def _weights(
    parts: Sequence[str], v: np.ndarray, softness: float, num_users: int, part_temperatures: dict[str, float]
) -> BlendWeights:
    """Split v into weights that sum to 1 and a temperature, made `softness` times as high."""
    total = float(v[:-1].sum()) or 1.0
    weights = {part: float(value) / total for part, value in zip(parts, v, strict=False)}
    return BlendWeights(weights, float(v[-1]) / total, softness / total, num_users, part_temperatures)


def _fit(features: np.ndarray, present: np.ndarray, column: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return the minimiser of the module's objective by projected Newton steps (Bertsekas 1982); strictly convex, so there is one."""
    bounded = np.arange(len(prior)) < len(prior) - 1
    rows = np.arange(len(features))

    def objective(v: np.ndarray) -> float:
        scores = np.where(present, features @ v, -np.inf)
        return float(-_log_softmax(scores)[rows, column].sum()) + SHRINK / 2 * float(((v - prior) ** 2).sum())

    v = prior.copy()
    for _ in range(100):
        probability = np.exp(_log_softmax(np.where(present, features @ v, -np.inf)))
        mean = np.einsum("uc,ucp->up", probability, features)
        gradient = (mean - features[rows, column]).sum(axis=0) + SHRINK * (v - prior)
        curvature = (
            np.einsum("uc,ucp,ucq->pq", probability, features, features)
            - mean.T @ mean
            + SHRINK * np.eye(len(v))
        )
        free = ~(bounded & (v <= 0) & (gradient > 0))
        if np.abs(gradient[free]).max(initial=0.0) < 1e-8 * (1 + len(features)):
            break
        step = np.zeros_like(v)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        v = _descended(objective, v, step, bounded)
    return v


def _descended(
    objective: Callable[[np.ndarray], float], v: np.ndarray, step: np.ndarray, bounded: np.ndarray
) -> np.ndarray:
    """Return v after the longest of step, step/2, step/4 … that lowers the objective; v itself where none does."""
    now = objective(v)
    for halvings in range(40):
        tried = v - step / 2**halvings
        tried = np.where(bounded, np.maximum(tried, 0.0), tried)
        if objective(tried) < now:
            return tried
    return v


def _temperature(scores: np.ndarray, column: np.ndarray) -> float:
    """Return the temperature of the grid with the lowest NLL of the true items, shrunk towards 1 like the weights."""
    rows = np.arange(len(scores))
    losses = [
        -_log_softmax(scores / value)[rows, column].sum() + SHRINK / 2 * np.log(value) ** 2
        for value in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

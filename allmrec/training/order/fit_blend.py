"""Fitting the blend where it is used, on users whose held-back item no trained part has seen.

It is fitted on retrieved candidates, of the users whose held-back item is among them: a night's lists are
hard to tell apart, and they are what an evaluation judges first. The weights v (temperature included)
maximise the likelihood of the true item under softmax(score) over the candidates, are never negative (a part
that misleads is left out), and are shrunk towards a prior, so that few users hardly move it
(`allmrec.training.order.logit`).

v is then split into weights that sum to 1 and a temperature. The temperature is set on users that the weights
were not fitted on (two halves, crosswise), so that the probabilities are calibrated and not as sure as the
fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from allmrec import metrics, seeds
from allmrec.parts import PARTS
from allmrec.ranking import ties
from allmrec.ranking.blend import BlendWeights, blend_features
from allmrec.ranking.candidate_lists import CandidateLists, filled
from allmrec.ranking.served import log_softmax
from allmrec.training.order.logit import SHRINK, fit_logit

TEMPERATURES = np.exp(np.linspace(-4.0, 4.0, 801))
"""Grid on which a temperature is sought."""


def fit_blend(
    lists: CandidateLists,
    targets: Sequence[str],
    parts: Sequence[str],
    prior: BlendWeights | None = None,
    seed: int = 0,
) -> tuple[BlendWeights, dict[str, float]]:
    """Fit the weights of `parts` on scored lists that hold the true item; return them with figures.

    Parameters
    ----------
    lists: as `Scorer.score` returns them. Users without the target among at least two candidates are left
        out. Where `llm` is a part, the candidates are those that the LLM read.
    targets: the true item's id, one per user.
    prior: weights to shrink towards (those without the LLM, say); None: the parts' own. Without any user the
        prior is returned.

    Returns the weights and figures: Hit@1 and NDCG@10 of `<part>` alone, of `blend` (crosswise: each half
    ordered by weights from the other) and of `blend_fitted` (on the users it was fitted on), `num_users`, and
    each `weight_<part>` and the temperature. Without users only num_users.
    """
    start_P = _start(parts, prior)
    lists, columns_B = _usable(lists, targets, _with_llm(parts))
    if not len(lists):
        return _weights(parts, start_P, 1.0, 0, {}), {"num_users": 0.0}
    features_BCP = blend_features(lists, parts)
    chosen_BC = _choices(lists, _with_llm(parts))
    fitted_P = fit_logit(features_BCP, chosen_BC, columns_B, start_P)
    crosswise_BC = _crosswise_scores(lists, features_BCP, chosen_BC, columns_B, start_P, seed)
    alone = {part: np.where(chosen_BC, filled(lists.part(part), lists.present), -np.inf) for part in parts}
    temperatures = {part: _temperature(alone[part], columns_B) for part in parts if PARTS[part].is_calibrated}
    blend = _weights(parts, fitted_P, _temperature(crosswise_BC, columns_B), len(lists), temperatures)
    figures = {"num_users": float(len(lists)), "temperature": blend.temperature}
    figures |= {f"weight_{part}": weight for part, weight in blend.weights.items()}
    orders = {
        **alone,
        "blend": crosswise_BC,
        "blend_fitted": np.where(chosen_BC, features_BCP @ fitted_P, -np.inf),
    }
    return blend, figures | _figures_of(orders, lists, columns_B, seed)


def _choices(lists: CandidateLists, with_llm: bool) -> np.ndarray:
    """Return which candidates are told apart, [B, C] bool: all, or those that the LLM read."""
    return ~np.isnan(lists.part("llm")) if with_llm else lists.present


def _usable(
    lists: CandidateLists, targets: Sequence[str], with_llm: bool
) -> tuple[CandidateLists, np.ndarray]:
    """Return the lists that say something about the weights, and the target's column in each, [b] int64."""
    columns_B = lists.columns_of(targets)
    chosen_BC = _choices(lists, with_llm)
    usable_B = (chosen_BC.sum(axis=1) > 1) & (columns_B >= 0)
    usable_B[usable_B] = chosen_BC[usable_B, columns_B[usable_B]]
    return lists.take(usable_B), columns_B[usable_B]


def _with_llm(parts: Sequence[str]) -> bool:
    """Return whether the LLM computes one of the parts."""
    return any(PARTS[part].reads_llm for part in parts)


def without_llm(parts: Sequence[str]) -> list[str]:
    """Return the parts of the blend without the LLM."""
    return [part for part in parts if not PARTS[part].reads_llm]


def halves_of(users: np.ndarray, seed: int) -> np.ndarray:
    """Return which half each user is in, [B] int64: drawn from (seed, user)."""
    return np.array([seeds.derive(seed, "blend", user) % 2 for user in users], dtype=np.int64)


def _crosswise_scores(
    lists: CandidateLists,
    features_BCP: np.ndarray,
    chosen_BC: np.ndarray,
    columns_B: np.ndarray,
    start_P: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Return scores [B, C] by weights from the other half of the users, −inf beyond the choices."""
    halves = halves_of(lists.users, seed)
    scores_BC = np.empty(chosen_BC.shape)
    for half in (0, 1):
        these = halves == half
        others = halves != half
        scores_BC[these] = features_BCP[these] @ fit_logit(
            features_BCP[others], chosen_BC[others], columns_B[others], start_P
        )
    scores_BC[~chosen_BC] = -np.inf
    return scores_BC


def _figures_of(
    orders: Mapping[str, np.ndarray], lists: CandidateLists, columns_B: np.ndarray, seed: int
) -> dict[str, float]:
    """Return Hit@1 and NDCG@10 of several scorings [B, C] of the same lists."""
    figures = {}
    rows_B = np.arange(len(lists))
    for name, scores_BC in orders.items():
        ranks_B = ties.ranks(scores_BC, lists, seed)[rows_B, columns_B]
        figures[f"{name}_Hit@1"] = metrics.mean(metrics.hit(ranks_B, 1))
        figures[f"{name}_NDCG@10"] = metrics.mean(metrics.ndcg(ranks_B, 10))
    return figures


def _start(parts: Sequence[str], prior: BlendWeights | None) -> np.ndarray:
    """Return the prior as v, [P + 1] float64: weights and the unknown offset, divided by the temperature."""
    if prior is None:
        return np.array([*(PARTS[part].prior for part in parts), 0.0])
    scaled = [
        prior.weights[part] / prior.temperature if part in prior.weights else PARTS[part].prior
        for part in parts
    ]
    return np.array([*scaled, prior.unknown_offset / prior.temperature])


def _weights(
    parts: Sequence[str],
    v_P: np.ndarray,
    softness: float,
    num_users: int,
    part_temperatures: dict[str, float],
) -> BlendWeights:
    """Split v [P + 1] into weights that sum to 1 and a temperature, made `softness` times as high."""
    total = float(v_P[:-1].sum()) or 1.0
    weights = {part: float(value) / total for part, value in zip(parts, v_P, strict=False)}
    return BlendWeights(weights, float(v_P[-1]) / total, softness / total, num_users, part_temperatures)


def _temperature(scores_BC: np.ndarray, columns_B: np.ndarray) -> float:
    """Return the temperature of the grid with the lowest NLL of the true items, shrunk towards 1."""
    rows_B = np.arange(len(scores_BC))
    losses = [
        -log_softmax(scores_BC / value)[rows_B, columns_B].sum() + SHRINK / 2 * np.log(value) ** 2
        for value in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])

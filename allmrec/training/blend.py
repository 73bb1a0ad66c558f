"""Fitting the blend where it is used, on users whose held-back item no trained part has seen.

It is fitted on retrieved candidates, of the users whose held-back item is among them: a night's lists are
hard to tell apart, and they are what an evaluation judges first. The weights v (temperature included)
maximise the likelihood of the true item under softmax(score) over the candidates, are never negative (a part
that misleads is left out), and are shrunk towards a prior, so that few users hardly move it
(`allmrec.training.logit`).

v is then split into weights that sum to 1 and a temperature. The temperature is set on users that the weights
were not fitted on (two halves, crosswise), so that the probabilities are calibrated and not as sure as the
fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from allmrec import metrics, seeds
from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.blend import BlendWeights, blend_features
from allmrec.ranking.candidate_lists import CandidateLists, filled
from allmrec.reporting import Report
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.training.loader import Snapshot
from allmrec.training.logit import SHRINK, fit_logit, log_softmax
from allmrec.training.retrieval import fit_retrieval, held_back_users

PRIOR = {"cf": 1.0, "text": 0.3, "alignment": 0.5, "llm": 0.1, "popularity": 0.0}
"""Weights (temperature included) before any user was looked at: about what the measured blends ended near."""

TEMPERATURES = np.exp(np.linspace(-4.0, 4.0, 801))
"""Grid on which a temperature is sought."""

USERS_WITH_LLM, USERS_WITHOUT_LLM = 64, 4096
"""Users scored together."""


def fit_blends(
    bundle: Bundle, snapshot: Snapshot, llm: FrozenLLM, config: Config, report: Report
) -> tuple[dict[str, BlendWeights], dict[str, float]]:
    """Return the blends `without_llm` and `with_llm`, and every part's figures on the users of the fit.

    The blend without the LLM is fitted on at most `training.blend_users`; the LLM reads at most
    `training.blend_llm_users` of them.
    """
    retrieval = fit_retrieval(bundle, snapshot, config)
    bundle.blends = {"retrieval": retrieval}
    lists, targets, recall = blend_lists(bundle, snapshot, config)
    parts = config.training.blend_parts
    without, figures = fit_blend(
        _scored(Scorer(bundle, None, config), lists, USERS_WITHOUT_LLM, report),
        targets,
        [part for part in parts if part != "llm"],
        seed=config.seed,
    )
    num_read = min(len(lists), config.training.blend_llm_users)
    read = _scored(
        Scorer(bundle, llm, config), lists.take(np.arange(num_read)).asking_llm(True), USERS_WITH_LLM, report
    )
    # Few users are read by the LLM: the weights with it are shrunk towards those found on all users without
    # it.
    with_llm, figures_with_llm = fit_blend(read, targets[:num_read], parts, without, config.seed)
    named = {f"blend_without_llm_{name}": value for name, value in figures.items()}
    named |= {f"blend_with_llm_{name}": value for name, value in figures_with_llm.items()}
    named["blend_recall"] = recall
    named |= {f"retrieval_weight_{name}": weight for name, weight in retrieval.weights.items()}
    named["retrieval_num_users"] = float(retrieval.num_users)
    blends = {"retrieval": retrieval, "without_llm": without, "with_llm": with_llm}
    return {name: replace(blend, recall=recall) for name, blend in blends.items()}, named


def blend_lists(
    bundle: Bundle, snapshot: Snapshot, config: Config
) -> tuple[CandidateLists, list[str], float]:
    """Return the retrieved lists that hold the held-back item, of `held_back_users`; the items; the recall.

    Retrieval's recall is the share of such lists; 1 where there is nobody to look at. Users stand in an order
    drawn from the seed, so that the first ones are a sample.
    """
    rows = held_back_users(snapshot, config)
    ids = bundle.items.set_index("item_idx")["item_id"].to_dict()
    users, targets = rows["user_id"].tolist(), [ids[idx] for idx in rows["held_back"]]
    histories = [[ids[idx] for idx in history if idx > 0] for history in rows["item_idx"]]
    seen = [[ids[idx] for idx in items if idx > 0] for items in rows["seen"]]
    retriever = Retriever(bundle, None, config.candidates)
    lists = retriever.retrieve(users, histories, seen)
    # Only lists that hold the true item say how to order one. Placing it into the others would teach that the
    # true item is the one that retrieval ranks last: on the demo shop all weights then became 0.
    has_target = np.flatnonzero(lists.columns_of(targets) >= 0)
    recall = len(has_target) / len(lists) if len(lists) else 1.0
    return lists.take(has_target), [targets[row] for row in has_target.tolist()], recall


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
        out, and, where `llm` is a part, those whom the LLM did not score.
    targets: the true item's id, one per user.
    prior: weights to shrink towards (those without the LLM, say); None: `PRIOR`. Without any user the prior
        is returned.

    Returns the weights and figures: Hit@1 and NDCG@10 of `<part>` alone, of `blend` (crosswise: each half
    ordered by weights from the other) and of `blend_fitted` (on the users it was fitted on), `num_users`, and
    each `weight_<part>` and the temperature. Without users only num_users.
    """
    start_P = _start(parts, prior)
    lists, columns_B = _usable(lists, targets, "llm" in parts)
    if not len(lists):
        return _weights(parts, start_P, 1.0, 0, {}), {"num_users": 0.0}
    features_BCP, present_BC = blend_features(lists, parts), lists.present
    fitted_P = fit_logit(features_BCP, present_BC, columns_B, start_P)
    crosswise_BC = _crosswise_scores(lists, features_BCP, columns_B, start_P, seed)
    alone = {part: filled(lists.part(part), present_BC) for part in parts}
    temperatures = {part: _temperature(alone[part], columns_B) for part in parts if part in ("cf", "llm")}
    blend = _weights(parts, fitted_P, _temperature(crosswise_BC, columns_B), len(lists), temperatures)
    figures = {"num_users": float(len(lists)), "temperature": blend.temperature}
    figures |= {f"weight_{part}": weight for part, weight in blend.weights.items()}
    orders = {
        **alone,
        "blend": crosswise_BC,
        "blend_fitted": np.where(present_BC, features_BCP @ fitted_P, -np.inf),
    }
    return blend, figures | _figures_of(orders, columns_B)


def _scored(scorer: Scorer, lists: CandidateLists, num_together: int, report: Report) -> CandidateLists:
    """Return the lists scored, so many users at a time."""
    pieces = []
    with report.progress("users of the blend", len(lists), "users") as progress:
        for start in range(0, len(lists), num_together):
            rows = np.arange(start, min(start + num_together, len(lists)))
            pieces.append(scorer.score(lists.take(rows)))
            progress.update(start + len(rows))
    return CandidateLists.concatenated(pieces)


def _usable(
    lists: CandidateLists, targets: Sequence[str], with_llm: bool
) -> tuple[CandidateLists, np.ndarray]:
    """Return the lists that say something about the weights, and the target's column in each, [b] int64."""
    columns_B = lists.columns_of(targets)
    usable_B = (lists.counts > 1) & (columns_B >= 0)
    if with_llm:
        usable_B &= ~np.isnan(lists.part("llm")).all(axis=1)
    return lists.take(usable_B), columns_B[usable_B]


def _crosswise_scores(
    lists: CandidateLists, features_BCP: np.ndarray, columns_B: np.ndarray, start_P: np.ndarray, seed: int
) -> np.ndarray:
    """Return scores [B, C] by weights from the other half of the users, −inf beyond the candidates.

    Halves are drawn from (seed, user).
    """
    half_B = np.array([seeds.derive(seed, "blend", user) % 2 for user in lists.users])
    scores_BC = np.empty(lists.present.shape)
    for half in (0, 1):
        these, others = half_B == half, half_B != half
        scores_BC[these] = features_BCP[these] @ fit_logit(
            features_BCP[others], lists.present[others], columns_B[others], start_P
        )
    scores_BC[~lists.present] = -np.inf
    return scores_BC


def _figures_of(orders: Mapping[str, np.ndarray], columns_B: np.ndarray) -> dict[str, float]:
    """Return Hit@1 and NDCG@10 of several scorings [B, C] of the same lists."""
    figures = {}
    for name, scores_BC in orders.items():
        ranks_B = metrics.ranks_of_target(scores_BC, columns_B)
        figures[f"{name}_Hit@1"] = metrics.mean(metrics.hit(ranks_B, 1))
        figures[f"{name}_NDCG@10"] = metrics.mean(metrics.ndcg(ranks_B, 10))
    return figures


def _start(parts: Sequence[str], prior: BlendWeights | None) -> np.ndarray:
    """Return the prior as v, [P + 1] float64: weights and the unknown offset, divided by the temperature."""
    if prior is None:
        return np.array([*(PRIOR[part] for part in parts), 0.0])
    scaled = [
        prior.weights[part] / prior.temperature if part in prior.weights else PRIOR[part] for part in parts
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

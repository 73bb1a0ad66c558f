"""Fitting the blend where it is used, on users whose held-back item no trained part has seen.

It is fitted on retrieved candidates, of the users whose held-back item is among them: a night's lists are
hard to tell apart, and they are what an evaluation judges first. The weights v (temperature included)
maximise the likelihood of the true item under softmax(score) over the candidates, are never negative (a part
that misleads is left out), and are shrunk towards a prior, so that few users hardly move it:

    min_v  Σ_u −log softmax(f_u v)[target_u] + SHRINK/2 · |v − prior|²      v_part ≥ 0

v is then split into weights that sum to 1 and a temperature. The temperature is set on users that the weights
were not fitted on (two halves, crosswise), so that the probabilities are calibrated and not as sure as the
fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

PRIOR = {"cf": 1.0, "text": 0.3, "alignment": 0.5, "llm": 0.1, "popularity": 0.0}
"""Weights (temperature included) before any user was looked at: about what the measured blends ended near."""

SHRINK = 50.0
"""How many users the prior is worth, roughly: a z-scored part tells at most 1 per user about its weight
(Fisher information).
"""

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
    blends = {"without_llm": without, "with_llm": with_llm}
    return {name: replace(blend, recall=recall) for name, blend in blends.items()}, named


def blend_lists(
    bundle: Bundle, snapshot: Snapshot, config: Config
) -> tuple[CandidateLists, list[str], float]:
    """Return retrieved lists, of users with role blend, that hold the held-back item; the items; the recall.

    Retrieval's recall is the share of such lists; 1 where there is nobody to look at. Users stand in an order
    drawn from the seed, so that the first ones are a sample.
    """
    rows = snapshot.held_back("blend").sort_values("user_id", ignore_index=True)
    order = sorted(rows.index, key=lambda row: seeds.derive(config.seed, "blend", rows["user_id"][row]))
    rows = rows.loc[order[: config.training.blend_users]].reset_index(drop=True)
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
    fitted_P = _fit(features_BCP, present_BC, columns_B, start_P)
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
        scores_BC[these] = features_BCP[these] @ _fit(
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


def _fit(
    features_BCP: np.ndarray, present_BC: np.ndarray, columns_B: np.ndarray, prior_P: np.ndarray
) -> np.ndarray:
    """Return the minimiser [P] of the module's objective by projected Newton steps (Bertsekas 1982).

    It is strictly convex.
    """
    bounded_P = np.arange(len(prior_P)) < len(prior_P) - 1
    rows_B = np.arange(len(features_BCP))

    def objective(v_P: np.ndarray) -> float:
        scores_BC = np.where(present_BC, features_BCP @ v_P, -np.inf)
        return float(-_log_softmax(scores_BC)[rows_B, columns_B].sum()) + SHRINK / 2 * float(
            ((v_P - prior_P) ** 2).sum()
        )

    v_P = prior_P.copy()
    for _ in range(100):
        probability_BC = np.exp(_log_softmax(np.where(present_BC, features_BCP @ v_P, -np.inf)))
        mean_BP = np.einsum("uc,ucp->up", probability_BC, features_BCP)
        gradient_P = (mean_BP - features_BCP[rows_B, columns_B]).sum(axis=0) + SHRINK * (v_P - prior_P)
        squares_PP = np.einsum("uc,ucp,ucq->pq", probability_BC, features_BCP, features_BCP)
        curvature_PP = squares_PP - mean_BP.T @ mean_BP + SHRINK * np.eye(len(v_P))
        free_P = ~(bounded_P & (v_P <= 0) & (gradient_P > 0))
        if np.abs(gradient_P[free_P]).max(initial=0.0) < 1e-8 * (1 + len(features_BCP)):
            break
        step_P = np.zeros_like(v_P)
        step_P[free_P] = np.linalg.solve(curvature_PP[np.ix_(free_P, free_P)], gradient_P[free_P])
        v_P = _descended(objective, v_P, step_P, bounded_P)
    return v_P


def _descended(
    objective: Callable[[np.ndarray], float], v_P: np.ndarray, step_P: np.ndarray, bounded_P: np.ndarray
) -> np.ndarray:
    """Return v [P] after the longest of step, step/2, step/4 … that lowers the objective.

    V itself where none does.
    """
    now = objective(v_P)
    for halvings in range(40):
        tried_P = v_P - step_P / 2**halvings
        tried_P = np.where(bounded_P, np.maximum(tried_P, 0.0), tried_P)
        if objective(tried_P) < now:
            return tried_P
    return v_P


def _temperature(scores_BC: np.ndarray, columns_B: np.ndarray) -> float:
    """Return the temperature of the grid with the lowest NLL of the true items, shrunk towards 1."""
    rows_B = np.arange(len(scores_BC))
    losses = [
        -_log_softmax(scores_BC / value)[rows_B, columns_B].sum() + SHRINK / 2 * np.log(value) ** 2
        for value in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def _log_softmax(scores_BC: np.ndarray) -> np.ndarray:
    """Return log softmax over each row, [B, C] float64."""
    shifted_BC = scores_BC - scores_BC.max(axis=1, keepdims=True)
    return shifted_BC - np.log(np.exp(shifted_BC).sum(axis=1, keepdims=True))

"""A conditional logit (McFadden 1974) with weights that are never negative, shrunk towards a prior.

min_v  Σ_u −log softmax(f_u v)[target_u] + SHRINK/2 · |v − prior|²      v_part ≥ 0
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from allmrec.ranking.served import log_softmax

SHRINK = 50.0
"""How many users the prior is worth, roughly: a z-scored part tells at most 1 per user about its weight
(Fisher information).
"""


def fit_logit(
    features_BCP: np.ndarray, present_BC: np.ndarray, columns_B: np.ndarray, prior_P: np.ndarray
) -> np.ndarray:
    """Return the minimiser [P] by projected Newton steps (Bertsekas 1982). The objective is strictly convex.

    | input | shape |
    |---|---|
    | features_BCP | [B, C, P] float64: f_u, a row per candidate |
    | present_BC | [B, C] bool: which candidates there are |
    | columns_B | [B] int64: the chosen candidate |
    | prior_P | [P] float64; the last weight may be negative, the others may not |
    """
    bounded_P = np.arange(len(prior_P)) < len(prior_P) - 1
    rows_B = np.arange(len(features_BCP))

    def objective(v_P: np.ndarray) -> float:
        scores_BC = np.where(present_BC, features_BCP @ v_P, -np.inf)
        return float(-log_softmax(scores_BC)[rows_B, columns_B].sum()) + SHRINK / 2 * float(
            ((v_P - prior_P) ** 2).sum()
        )

    v_P = prior_P.copy()
    for _ in range(100):
        probability_BC = np.exp(log_softmax(np.where(present_BC, features_BCP @ v_P, -np.inf)))
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

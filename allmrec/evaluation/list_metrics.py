"""Metrics of whole lists and of probabilities.

NumPy only. `top_UK` [U, K] int64 holds the items of each user's list, best first, as columns of the catalogue
from 0, and −1 where a list is shorter.
"""

from __future__ import annotations

import numpy as np


def coverage(top_UK: np.ndarray, num_items: int) -> float:
    """Return the share of the catalogue that lists contain. NaN without users or items.

    Source: Ge, Delgado-Battenfeld & Jannach, RecSys 2010 (catalogue coverage). Coverage grows with the number
    of users.
    """
    if not len(top_UK) or not num_items:
        return float("nan")
    return len(np.unique(top_UK[top_UK >= 0])) / num_items


def novelty(top_UK: np.ndarray, num_interactions_I: np.ndarray) -> np.ndarray:
    """Return the mean self-information of each user's items in bits, [U] float64.

    −log2 p_i, p_i = (n_i + 1) / Σ (n + 1): the share of interactions, so that an item without interactions
    counts like an item with one. NaN for an empty list. Source: Zhou et al., PNAS 2010.
    """
    counts_I = np.asarray(num_interactions_I, dtype=np.float64) + 1.0
    return _mean_of_items(top_UK, -np.log2(counts_I / counts_I.sum()))


def popularity(top_UK: np.ndarray, num_interactions_I: np.ndarray) -> np.ndarray:
    """Return the mean training interactions of each user's items, [U] float64.

    NaN for an empty list. Source: Yin et al., VLDB 2012 (average recommendation popularity).
    """
    return _mean_of_items(top_UK, np.asarray(num_interactions_I, dtype=np.float64))


def diversity(top_UK: np.ndarray, vectors_IS: np.ndarray) -> np.ndarray:
    """Return the mean 1 − cosine over each list's pairs, [U] float64.

    `vectors_IS` [I, S] are the items' text embeddings; a zero vector has the distance 1 from all others. NaN
    for a list of fewer than two items. Source: Smyth & McClave, ICCBR 2001 (intra-list diversity).
    """
    lengths_I1 = np.linalg.norm(vectors_IS, axis=1, keepdims=True)
    units_IS = np.divide(vectors_IS, lengths_I1, out=np.zeros_like(vectors_IS), where=lengths_I1 > 0)
    present_UK = top_UK >= 0
    counts_U = present_UK.sum(axis=1)
    found_U = np.full(len(top_UK), np.nan)
    for user in np.flatnonzero(counts_U >= 2):
        own_KS = units_IS[top_UK[user, present_UK[user]]]
        cosines_KK = own_KS @ own_KS.T
        num_pairs = counts_U[user] * (counts_U[user] - 1)
        found_U[user] = 1.0 - (cosines_KK.sum() - np.trace(cosines_KK)) / num_pairs
    return found_U


def auc(scores_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Return the area under the ROC curve over all candidates. NaN without both classes.

    The area is the chance that a true item [N bool] has a higher score than another one, of any users; ties
    count half. Source: Mann & Whitney 1947; Zhang et al., TKDE 2025 (CoLLM), section 4.1.
    """
    labels_N = np.asarray(labels_N, dtype=bool)
    num_true = int(labels_N.sum())
    num_false = int((~labels_N).sum())
    if not num_true or not num_false:
        return float("nan")
    _, which_N, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    above = mean_ranks[which_N[labels_N]].sum() - num_true * (num_true + 1) / 2
    return float(above / (num_true * num_false))


def auc_per_user(ranks_U: np.ndarray, num_ranked_U: np.ndarray) -> np.ndarray:
    """Return the area under each user's ROC curve, [U] float64.

    The area is (C − r) / (C − 1), the share of the C − 1 other candidates behind the true item of rank r; 0
    if the item was not ranked (r infinite), NaN without other candidates. Source: Zhang et al., TKDE 2025
    (CoLLM), section 4.1.
    """
    ranks_U = np.asarray(ranks_U, dtype=np.float64)
    num_U = np.asarray(num_ranked_U, dtype=np.float64)
    behind_U = np.where(np.isfinite(ranks_U), num_U - ranks_U, 0.0)
    return np.divide(behind_U, num_U - 1, out=np.full(len(ranks_U), np.nan), where=num_U > 1)


def calibration_error(probabilities_N: np.ndarray, labels_N: np.ndarray, num_bins: int = 10) -> float:
    """Return the expected calibration error over bins of equally many candidates.

    Σ_bins n_bin / N · |mean probability − share of true items|, NaN without candidates. The first bin of
    equal width would contain nearly all candidates. Source: Nguyen & O'Connor, EMNLP 2015, section 3.
    """
    bins = calibration_bins(probabilities_N, labels_N, num_bins)
    if not bins:
        return float("nan")
    gaps = [abs(stated - came_true) * num for stated, came_true, num in bins]
    return sum(gaps) / len(probabilities_N)


def calibration_bins(
    probabilities_N: np.ndarray, labels_N: np.ndarray, num_bins: int = 10
) -> list[tuple[float, float, int]]:
    """Return (mean probability, share of true items, candidates) of each bin.

    Bins are in the order of probability, of equal numbers of candidates but for one, and without empty ones.
    """
    order = np.argsort(probabilities_N, kind="stable")
    labels_N = np.asarray(labels_N, dtype=np.float64)
    return [
        (float(probabilities_N[part].mean()), float(labels_N[part].mean()), len(part))
        for part in np.array_split(order, num_bins)
        if len(part)
    ]


def _mean_of_items(top_UK: np.ndarray, values_I: np.ndarray) -> np.ndarray:
    """Return the mean of a value over each user's items, [U] float64. NaN for none."""
    present_UK = top_UK >= 0
    sums_U = np.where(present_UK, values_I[np.maximum(top_UK, 0)], 0.0).sum(axis=1)
    counts_U = present_UK.sum(axis=1)
    return np.divide(sums_U, counts_U, out=np.full(len(top_UK), np.nan), where=counts_U > 0)

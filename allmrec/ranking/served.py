"""The served order: scored candidates → ranked rows with score, probability, parts, source and the reason of a fallback.

A user's list is ordered by the LLM (`llm`: the blend with it, or it alone, as `scoring.order` says), by the blend without it or the CF
model (`cf`), or as retrieved (`popular`) where nothing of the history is known. Equal scores: by CF score, then item_id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from allmrec.config import Config
from allmrec.ranking.blend import COLUMN_OF_PART, BlendWeights, filled, part_matrix

COLUMNS = ["user_id", "rank", "item_id", "score", "probability", "llm_logprob", "alignment_score", "cf_score", "text_score", "source",
           "fallback_reason"]  # fmt: skip

PART_COLUMNS = {
    "llm_logprob": "llm_logprobs",
    "alignment_score": "alignment_scores",
    "cf_score": "cf_scores",
    "text_score": "text_scores",
}


@dataclass(frozen=True)
class ServedScores:
    """What orders the lists of B users with up to C candidates."""

    scores_BC: np.ndarray
    """float64, −inf beyond a user's candidates."""
    temperature_B: np.ndarray
    """probability = softmax(score / temperature); NaN for popular lists, which have none."""
    source_B: np.ndarray
    """llm, cf or popular."""
    reason_B: np.ndarray
    """Why a user did not get what the settings say, else None."""


def rank(frame: pd.DataFrame, blends: Mapping[str, BlendWeights], config: Config) -> pd.DataFrame:
    """Return the `top_k` best candidates of every user, a row each, users in the order given, best first.

    `frame` is what `Scorer.score` returns; `blends` holds `with_llm` and `without_llm`. Columns: user_id, rank (int32, from 1), item_id,
    score (finite; what orders the list), probability (over all the user's candidates, calibrated; NaN for popular lists), llm_logprob
    (nats, before the prior), alignment_score, cf_score, text_score (float64, NaN where missing), source, fallback_reason (None where
    none). A user without candidates has no row.
    """
    counts = frame["candidates"].map(len).to_numpy(dtype=np.int64)
    if not counts.sum():
        return pd.DataFrame({name: [] for name in COLUMNS})
    present = np.arange(counts.max()) < counts[:, None]
    served = served_scores(frame, blends, config)
    best_B1 = served.scores_BC.max(axis=1, keepdims=True)
    best_B1[np.isneginf(best_B1)] = 0.0  # no candidates
    weight = np.exp((served.scores_BC - best_B1) / served.temperature_B[:, None])
    total = weight.sum(axis=1, keepdims=True)
    probability = np.divide(weight, total, out=np.full(weight.shape, np.nan), where=total > 0)
    rows = np.nonzero(present)[0]
    ids = np.array(list(chain.from_iterable(frame["candidates"])), dtype=object)
    table = pd.DataFrame(
        {"item_id": ids, "score": served.scores_BC[present], "probability": probability[present]}
    )
    for name, column in PART_COLUMNS.items():
        table[name] = part_matrix(frame, column)[present]
    place = np.lexsort(
        (pd.factorize(ids, sort=True)[0], -table["cf_score"].fillna(-np.inf), -table["score"], rows)
    )
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks = np.arange(len(rows)) - first[rows] + 1
    kept = ranks <= config.scoring.top_k
    table, rows = table.iloc[place[kept]].reset_index(drop=True), rows[kept]
    table["rank"] = ranks[kept].astype(np.int32)
    table["user_id"] = frame["user_id"].to_numpy()[rows]
    table["source"] = served.source_B[rows]
    table["fallback_reason"] = served.reason_B[rows]
    return table[COLUMNS]


def served_scores(frame: pd.DataFrame, blends: Mapping[str, BlendWeights], config: Config) -> ServedScores:
    """Return the scores by which every user's list is ordered under `scoring.order` and `scoring.mode`."""
    without, with_llm, order = blends["without_llm"], blends["with_llm"], config.scoring.order
    counts = frame["candidates"].map(len).to_numpy(dtype=np.int64)
    present = np.arange(counts.max(initial=0)) < counts[:, None]
    choice = part_matrix(frame, COLUMN_OF_PART["llm"])
    wanted = frame["use_llm"].to_numpy(dtype=bool) if order != "cf" else np.zeros(len(frame), dtype=bool)
    failure = frame["llm_failure"].to_numpy(dtype=object)
    by_llm = wanted & pd.isna(failure) & ~np.isnan(choice).all(axis=1)
    reason = np.full(len(frame), None, dtype=object)
    failed = wanted & ~by_llm
    reason[failed] = np.where(pd.isna(failure[failed]), "non_finite_score", failure[failed])

    scores = without.scores(frame)
    temperature = np.full(len(frame), without.temperature)
    if order == "cf":
        cf = part_matrix(frame, COLUMN_OF_PART["cf"])
        by_cf = ~np.isnan(cf).all(
            axis=1
        )  # a history that the CF model does not know: the blend's other parts order it
        scores[by_cf] = filled(cf, present)[by_cf]
        temperature[by_cf] = without.part_temperatures.get("cf", 1.0)
    if by_llm.any():
        found, softness = _llm_scores(
            frame[by_llm], choice[by_llm], present[by_llm], scores[by_llm], without, with_llm, config
        )
        scores[by_llm], temperature[by_llm] = found, softness
    popular = without_history(frame)
    scores[popular] = np.where(present[popular], 1.0 / (1.0 + np.arange(present.shape[1])), -np.inf)
    temperature[popular] = np.nan
    reason[popular] = "no_history"
    return ServedScores(
        scores,
        temperature,
        np.where(popular, "popular", np.where(by_llm, "llm", "cf")).astype(object),
        reason,
    )


def without_history(frame: pd.DataFrame) -> np.ndarray:
    """Return bool [B]: nothing of the history is known, so that neither CF nor text says anything and the list is popular items."""
    sources = np.array(
        [all(source == "popular" for source in found) for found in frame["sources"]], dtype=bool
    )
    cf, text = (part_matrix(frame, COLUMN_OF_PART[part]) for part in ("cf", "text"))
    return sources & np.isnan(cf).all(axis=1) & (np.nan_to_num(text) == 0).all(axis=1)


def _llm_scores(
    frame: pd.DataFrame,
    choice: np.ndarray,
    present: np.ndarray,
    by_blend: np.ndarray,
    without: BlendWeights,
    with_llm: BlendWeights,
    config: Config,
) -> tuple[np.ndarray, float]:
    """Return the scores [B, C] of users whom the LLM scored, and their temperature."""
    if config.scoring.mode == "generate":
        # The LLM says who is first and nothing else; the others follow as the blend without it has them.
        rows, winner = np.arange(len(choice)), np.where(np.isnan(choice), -np.inf, choice).argmax(axis=1)
        scores = by_blend.copy()
        scores[rows, winner] = np.maximum(by_blend.max(axis=1) + without.temperature, scores[rows, winner])
        return scores, without.temperature
    if config.scoring.order == "llm":
        return filled(choice, present), with_llm.part_temperatures.get("llm", 1.0)
    # Row by row the widths differ from the whole chunk's only in padding.
    scores = np.full(present.shape, -np.inf)
    found = with_llm.scores(frame)
    scores[:, : found.shape[1]] = found
    return scores, with_llm.temperature


def order_scores(
    frame: pd.DataFrame,
    model: str,
    blends: Mapping[str, BlendWeights],
    num_interactions: Mapping[str, int],
    config: Config,
) -> list[np.ndarray]:
    """Return how one model scores every user's candidates: a float64 array a user, all finite, higher is better.

    `model` is popularity (interactions in training), text, cf, blend (without the LLM), llm (A-LLMRec by itself) or served (what a night
    would order by). A candidate that the model cannot score is below all that it can.
    """
    counts = frame["candidates"].map(len).to_numpy(dtype=np.int64)
    present = np.arange(counts.max(initial=0)) < counts[:, None]
    if model == "popularity":
        return [
            np.array([num_interactions.get(item, 0) for item in ids], dtype=np.float64)
            for ids in frame["candidates"]
        ]
    if model == "served":
        scores = served_scores(frame, blends, config).scores_BC
    elif model == "blend":
        scores = blends["without_llm"].scores(frame)
    elif model in COLUMN_OF_PART:
        scores = filled(part_matrix(frame, COLUMN_OF_PART[model]), present)
    else:
        raise ValueError(f"model: {model!r}, expected popularity, text, cf, alignment, llm, blend or served")
    return [row[:count] for row, count in zip(scores, counts, strict=True)]

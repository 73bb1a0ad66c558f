"""The served order: which ranker orders whose list, the fallbacks with their reasons, the ranked rows.

A list is ordered with the LLM (source `llm`) where it was asked and could answer, without it (`cf`: the blend
without the LLM, or the CF model), or as retrieved (`popular`) where nothing of the history is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from allmrec.parts import PARTS
from allmrec.ranking.candidate_lists import CandidateLists, filled
from allmrec.ranking.rerankers import ReRanker, TextVectors, served_places
from allmrec.ranking.served_scores import ServedScores

COLUMNS = (
    *(
        "user_id",
        "rank",
        "item_id",
        "score",
        "probability",
        "llm_logprob",
        "alignment_score",
        "cf_score",
        "text_score",
    ),
    *("source", "fallback_reason", "score_without_llm"),
)
"""Columns of `ranked_rows`."""


class CalibratedRanker(Protocol):
    """A ranker whose scores give probabilities: softmax(score / temperature)."""

    @property
    def temperature(self) -> float:
        """Positive."""
        ...

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return a score per candidate, [B, C] float64: finite, and −inf beyond a user's candidates."""
        ...


@dataclass(frozen=True)
class PartRanker:
    """Orders by one part alone; a candidate that does not have it comes after all that do."""

    part: str
    temperature: float = 1.0
    """probability = softmax(score / temperature)."""

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return the part, [B, C] float64, missing values 1 below the user's lowest.

        −inf beyond a user's candidates.
        """
        return filled(lists.part(self.part), lists.present)


@dataclass(frozen=True)
class LLMFirst:
    """The order of generation: the LLM says who is first and nothing else.

    The others follow as the blend without it has them.
    """

    blend: CalibratedRanker

    @property
    def temperature(self) -> float:
        """The blend's."""
        return self.blend.temperature

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return the blend's scores, [B, C] float64, the LLM's choice lifted one temperature above them."""
        scores_BC = self.blend.scores(lists)
        choice_BC = lists.part("llm")
        rows_B = np.arange(len(lists))
        first_B = np.where(np.isnan(choice_BC), -np.inf, choice_BC).argmax(axis=1)
        above_B = scores_BC.max(axis=1) + self.temperature
        scores_BC[rows_B, first_B] = np.maximum(above_B, scores_BC[rows_B, first_B])
        return scores_BC


@dataclass(frozen=True)
class AmongRead:
    """The order with the LLM among the candidates that it read, the order without it for the others.

    A score is the log of the probability that the item comes next: the read candidates share the probability
    that they have without the LLM, in the proportions that they have with it.
    """

    with_llm: CalibratedRanker
    without_llm: CalibratedRanker
    temperature: float = 1.0

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return log-probabilities among the candidates, [B, C] float64, −inf beyond a user's candidates.

        A user of whom nothing was read keeps the order without the LLM.
        """
        read_BC = ~np.isnan(lists.part("llm"))
        without_BC = log_softmax(self.without_llm.scores(lists) / self.without_llm.temperature)
        scores_BC = self.with_llm.scores(lists) / self.with_llm.temperature
        with_BC = log_softmax(np.where(read_BC, scores_BC, -np.inf))
        share_BC = np.where(read_BC, np.exp(without_BC), 0.0)
        shared_B1 = np.log(share_BC.sum(axis=1, keepdims=True).clip(min=1e-300))
        return np.where(read_BC, shared_B1 + with_BC, without_BC)


def log_softmax(scores_BC: np.ndarray) -> np.ndarray:
    """Return log softmax over each row, [B, C] float64; a row of −inf stays as it is."""
    best_B1 = scores_BC.max(axis=1, keepdims=True, initial=-np.inf)
    shifted_BC = scores_BC - np.where(np.isneginf(best_B1), 0.0, best_B1)
    total_B1 = np.exp(shifted_BC).sum(axis=1, keepdims=True)
    return shifted_BC - np.log(np.where(total_B1 > 0, total_B1, 1.0))


@dataclass(frozen=True)
class ServedOrder:
    """What a night serves. A ranker like the others by `scores`; `order` says more."""

    blend: CalibratedRanker
    """The blend without the LLM: orders whatever the two below cannot."""
    without_llm: CalibratedRanker
    """Orders the users whom the LLM is not asked about: the blend, or the part that `scoring.order` names."""
    with_llm: CalibratedRanker | None
    """Orders the users whom the LLM has scored; None: nobody's list is ordered with it."""
    recall: float = 1.0
    """Share of users whose next item is among the candidates, by which probabilities are multiplied."""
    rerankers: tuple[ReRanker, ...] = ()
    """Move the ordered items, one after another (`allmrec.ranking.rerankers.served_places`)."""

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return a score per candidate, [B, C] float64: finite, and −inf beyond a user's candidates."""
        return self.order(lists).scores

    def order(self, lists: CandidateLists) -> ServedScores:
        """Return the scores by which every user's list is ordered, with where they come from."""
        scores_BC = self.blend.scores(lists)
        temperatures_B = np.full(len(lists), self.blend.temperature)
        if self.without_llm is not self.blend:
            known_B = _known_to(self.without_llm, lists)
            scores_BC[known_B] = self.without_llm.scores(lists)[known_B]
            temperatures_B[known_B] = self.without_llm.temperature
        asked_B = lists.use_llm & (self.with_llm is not None)
        answered_B = asked_B & pd.isna(lists.llm_failures) & ~np.isnan(lists.part("llm")).all(axis=1)
        if self.with_llm is not None and answered_B.any():
            answered = lists.take(answered_B)
            # Their lists may be shorter than the longest of all.
            scores_BC[answered_B, : answered.ids.shape[1]] = self.with_llm.scores(answered)
            temperatures_B[answered_B] = self.with_llm.temperature
        popular_B = without_history(lists)
        retrieved_C = 1.0 / (1.0 + np.arange(scores_BC.shape[1]))
        scores_BC[popular_B] = np.where(lists.present[popular_B], retrieved_C, -np.inf)
        temperatures_B[popular_B] = np.nan
        sources_B = np.where(popular_B, "popular", np.where(answered_B, "llm", "cf")).astype(object)
        return ServedScores(
            scores_BC, temperatures_B, sources_B, _reasons(lists, asked_B & ~answered_B, popular_B)
        )


def _known_to(ranker: CalibratedRanker, lists: CandidateLists) -> np.ndarray:
    """Return whom a ranker can order, [B] bool.

    A user whose candidates all lack the ranker's part is left to the blend's other parts.
    """
    if isinstance(ranker, PartRanker):
        return ~np.isnan(lists.part(ranker.part)).all(axis=1)
    return np.ones(len(lists), dtype=bool)


def _reasons(lists: CandidateLists, failed_B: np.ndarray, popular_B: np.ndarray) -> np.ndarray:
    """Return [B] object: the LLM's failure of those it failed, `no_history` for popular lists, else None."""
    reasons_B = np.full(len(lists), None, dtype=object)
    unnamed_B = pd.isna(lists.llm_failures)
    reasons_B[failed_B] = np.where(unnamed_B[failed_B], "non_finite_score", lists.llm_failures[failed_B])
    reasons_B[popular_B] = "no_history"
    return reasons_B


def without_history(lists: CandidateLists) -> np.ndarray:
    """Return [B] bool: nothing of the history is known, so neither CF nor text says anything."""
    found_B = ((lists.sources == "cf") | (lists.sources == "text")).any(axis=1)
    text_B = (np.nan_to_num(lists.part("text")) == 0).all(axis=1)
    return ~found_B & np.isnan(lists.part("cf")).all(axis=1) & text_B


def ranked_rows(
    lists: CandidateLists, served: ServedOrder, top_k: int, seed: int, vectors_of: TextVectors
) -> pd.DataFrame:
    """Return the first `top_k` candidates of every user as rows of `recommendations`, by place.

    Users stand in the order given; one without candidates has no row. `rank` is the place, int32 from 1;
    `score` is the relevance, finite, which orders the list unless a re-ranker does (`served_places`);
    `probability` is that the item comes next, calibrated, over all the user's candidates and what was not
    retrieved, and NaN for popular lists; `llm_logprob` is in nats, before the prior; the parts are float64,
    NaN where missing; `fallback_reason` is None where there is none; `score_without_llm` is the
    relevance by the blend without the LLM. `vectors_of` is asked by re-rankers
    only. Raises ValueError where a re-ranker gives a list other places than 1 to n.
    """
    if not lists.counts.sum():
        return pd.DataFrame({name: [] for name in COLUMNS})
    order = served.order(lists)
    without_llm = replace(served, without_llm=served.blend, with_llm=None).order(lists)
    places_BC = served_places(lists, order, served.rerankers, vectors_of, seed)
    columns_BK = np.argsort(places_BC, axis=1)[:, :top_k]
    is_row_BK = np.arange(columns_BK.shape[1]) < lists.counts[:, None]
    row_N, place_N = np.nonzero(is_row_BK)
    at_N = (row_N, columns_BK[row_N, place_N])
    probability_BC = probabilities(order.scores, order.temperatures, served.recall)
    table = {
        "user_id": lists.users[row_N],
        "rank": (place_N + 1).astype(np.int32),
        "item_id": lists.ids[at_N],
        "score": order.scores[at_N],
        "probability": probability_BC[at_N],
        "llm_logprob": lists.part("llm_logprob")[at_N],
        **{part.column: lists.part(name)[at_N] for name, part in PARTS.items() if part.column is not None},
        "source": order.sources[row_N],
        "fallback_reason": order.reasons[row_N],
        "score_without_llm": without_llm.scores[at_N],
    }
    return pd.DataFrame(table)[list(COLUMNS)]


def probabilities(scores_BC: np.ndarray, temperatures_B: np.ndarray, recall: float) -> np.ndarray:
    """Return recall · softmax(score / temperature) over every user's candidates, [B, C] float64.

    NaN for users without a temperature.
    """
    best_B1 = scores_BC.max(axis=1, keepdims=True)
    best_B1[np.isneginf(best_B1)] = 0.0  # no candidates
    weight_BC = np.exp((scores_BC - best_B1) / temperatures_B[:, None])
    total_B1 = weight_BC.sum(axis=1, keepdims=True)
    return recall * np.divide(weight_BC, total_B1, out=np.full(weight_BC.shape, np.nan), where=total_B1 > 0)

"""Re-rankers by name: everything that moves items after the served order, one entry of a table each.

A re-ranker decides places, and `rank` is the place. `score` stays the relevance, so that it may rise with the
rank. `scoring.rerankers` names the re-rankers of a night; each is given the places of the one before it.
Nights and evaluations place the candidates of every list by `served_places`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from allmrec.config import ScoringConfig
from allmrec.errors import ConfigError
from allmrec.ranking import ties
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.served_scores import ServedScores


class ReRanker(Protocol):
    """A re-ranker of whole candidate lists."""

    def places(
        self, lists: CandidateLists, order: ServedScores, places_BC: np.ndarray, vectors_BCS: np.ndarray
    ) -> np.ndarray:
        """Return the new places [B, C] int64: every user's n candidates have 1 to n.

        `places_BC` [B, C] int64 are the places so far, and `vectors_BCS` [B, C, S] float32 the embeddings of
        the candidates' texts. Values beyond a user's candidates are ignored. The places of a user depend on
        nobody else, because a night may keep a list while those around it change.
        """
        ...


RERANKERS: dict[str, Callable[[ScoringConfig], ReRanker]] = {}
"""Every re-ranker by its name in `scoring.rerankers`."""

TextVectors = Callable[[CandidateLists], np.ndarray]
"""From lists to the embeddings of their candidates' texts, [B, C, S] float32."""


def require_known(settings: ScoringConfig) -> None:
    """Raise ConfigError where `scoring.rerankers` names one that is not in `RERANKERS`."""
    for name in settings.rerankers:
        if name not in RERANKERS:
            known = ", ".join(RERANKERS) or "none is known yet"
            raise ConfigError(f"scoring.rerankers: {name}, expected the name of a re-ranker ({known})")


def rerankers(settings: ScoringConfig) -> tuple[ReRanker, ...]:
    """Return the re-rankers that `scoring.rerankers` names, in its order.

    Raises ConfigError where a name is not in `RERANKERS`.
    """
    require_known(settings)
    return tuple(RERANKERS[name](settings) for name in settings.rerankers)


def served_places(
    lists: CandidateLists,
    order: ServedScores,
    chosen: Sequence[ReRanker],
    vectors_of: TextVectors,
    seed: int,
) -> np.ndarray:
    """Return the place of every candidate, [B, C] int64 from 1: by score, then as re-rankers move it.

    Columns without a candidate come after all candidates. Raises ValueError where a re-ranker gives a list
    other places than 1 to n.
    """
    places_BC = ties.ranks(order.scores, lists, seed)
    if not chosen or not places_BC.size:
        return places_BC
    vectors_BCS = vectors_of(lists)
    for reranker in chosen:
        places_BC = _checked(reranker.places(lists, order, places_BC, vectors_BCS), lists, reranker)
    return places_BC


def _checked(places_BC: np.ndarray, lists: CandidateLists, reranker: ReRanker) -> np.ndarray:
    """Return the places with those of empty columns after all; raises ValueError for a gap or an equal."""
    column_C = np.arange(1, lists.ids.shape[1] + 1)
    placed_BC = np.where(lists.present, places_BC, column_C)
    is_wrong_B = (np.sort(placed_BC, axis=1) != column_C).any(axis=1)
    if is_wrong_B.any():
        row = int(np.argmax(is_wrong_B))
        found = placed_BC[row, : lists.counts[row]].tolist()
        raise ValueError(
            f"re-ranker {type(reranker).__name__}: places {found} for user {lists.users[row]!r}, "
            f"expected each of 1 to {lists.counts[row]} once"
        )
    return placed_BC.astype(np.int64)

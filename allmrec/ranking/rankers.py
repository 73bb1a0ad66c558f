"""Rankers by name: everything that can order candidate lists, behind one small contract.

    popularity   interactions in training
    text         similarity of the item's text to the history's
    cf           the CF model by itself
    alignment    the trained projections by themselves: cosine of O_u and O_i, without the LLM
    blend        the weighted parts without the LLM
    llm          A-LLMRec by itself: the LLM's choice score of the candidates that it read; the others follow
    llm_floor    the candidates that the LLM read, in drawn order; the others follow
    with_llm     the weighted parts with the LLM, among the candidates that it read
    served       what a night serves under `scoring.order` and `scoring.mode`

A new system is a ranker under a new name here: evaluation ranks with every entry of the table, and
`scoring.order` names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from allmrec.config import ScoringConfig
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.candidate_lists import CandidateLists, filled
from allmrec.ranking.served import AmongRead, CalibratedRanker, LLMFirst, ServedOrder

RANKER_NAMES = ("popularity", "text", "cf", "alignment", "blend", "llm", "llm_floor", "with_llm", "served")
"""The table's names, in the order of a report."""


class Ranker(Protocol):
    """What orders candidates."""

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return a score per candidate, [B, C] float64, higher is better; −inf beyond a user's candidates."""
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


def rankers(blends: Mapping[str, BlendWeights], settings: ScoringConfig) -> dict[str, Ranker]:
    """Return every ranker by its name, in the order of `RANKER_NAMES`.

    `blends` holds `with_llm` and `without_llm`.
    """
    table: dict[str, Ranker] = {
        "popularity": PartRanker("popularity"),
        "text": PartRanker("text"),
        "alignment": PartRanker("alignment"),
        "llm_floor": PartRanker("read"),
        **_calibrated(blends),
        "served": served_order(blends, settings),
    }
    return {name: table[name] for name in RANKER_NAMES}


def served_order(blends: Mapping[str, BlendWeights], settings: ScoringConfig) -> ServedOrder:
    """Return what a night serves: `scoring.order` names the ranker, `scoring.mode` how the LLM is asked.

    Raises ValueError for `auto`, which `allmrec.ranking.decision.resolved` makes another one of.
    """
    if settings.order == "auto":
        raise ValueError("scoring.order: auto, expected one that the bundle's decision resolved")
    table = _calibrated(blends)
    with_llm: dict[str, CalibratedRanker | None] = {
        "blend": table["with_llm"],
        "llm": table["llm"],
        "without_llm": None,
        "cf": None,
    }
    return ServedOrder(
        blend=table["blend"],
        without_llm=table["cf" if settings.order == "cf" else "blend"],
        with_llm=with_llm[settings.order] if settings.mode == "rank" else LLMFirst(table["blend"]),
        recall=blends["without_llm"].recall,
    )


def _calibrated(blends: Mapping[str, BlendWeights]) -> dict[str, CalibratedRanker]:
    """Return the rankers whose scores have a fitted temperature, by name."""
    blend, blend_with_llm = blends["without_llm"], blends["with_llm"]
    return {
        "cf": PartRanker("cf", blend.part_temperatures.get("cf", 1.0)),
        "blend": blend,
        "llm": PartRanker("llm", blend_with_llm.part_temperatures.get("llm", 1.0)),
        "with_llm": AmongRead(blend_with_llm, blend),
    }

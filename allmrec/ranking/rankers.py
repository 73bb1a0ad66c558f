"""Rankers by name: everything that can order candidate lists, one entry of a table each.

    popularity   interactions in training
    text         similarity of the item's text to the history's
    cf           the CF model by itself
    alignment    the trained projections by themselves: cosine of O_u and O_i, without the LLM
    blend        the weighted parts without the LLM
    llm          A-LLMRec by itself: the LLM's choice score of the candidates that it read; the others follow
    llm_floor    the candidates that the LLM read, in drawn order; the others follow
    with_llm     the weighted parts with the LLM, among the candidates that it read
    served       what a night serves under `scoring.order` and `scoring.mode`

A new ranker is an entry of `RANKERS`: evaluations, their reports and pages, and comparisons have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from allmrec.config import ScoringConfig
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.candidate_lists import CandidateLists, filled
from allmrec.ranking.served import AmongRead, CalibratedRanker, LLMFirst, ServedOrder


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


Blends = Mapping[str, BlendWeights]
"""`with_llm` and `without_llm`."""


@dataclass(frozen=True)
class Entry:
    """A ranker of the table."""

    label: str
    """Its name in a report."""
    make: Callable[[Blends, ScoringConfig], Ranker]
    scores_catalogue: bool = True
    """Whether it can score every item. Else its order of the retrieved list stands for the catalogue's."""
    is_calibrated: bool = False
    """Whether its scores have a fitted temperature: it is a `CalibratedRanker`."""
    asks_llm: bool = False
    """Whether the LLM may decide its order, and so is part of its cost."""
    colour: str = "#888888"
    """Its colour in a plot, on a light and on a dark background."""


def rankers(blends: Blends, settings: ScoringConfig) -> dict[str, Ranker]:
    """Return every ranker of `RANKERS` by its name, in the order of a report."""
    return {name: entry.make(blends, settings) for name, entry in RANKERS.items()}


def label_of(name: str) -> str:
    """Return a ranker's name in a report; its own name where the table lacks it."""
    return RANKERS[name].label if name in RANKERS else name


def colour_of(name: str) -> str:
    """Return a ranker's colour in a plot; that of an entry without one where the table lacks it."""
    return RANKERS[name].colour if name in RANKERS else Entry.colour


def served_order(blends: Blends, settings: ScoringConfig) -> ServedOrder:
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


def _calibrated(blends: Blends) -> dict[str, CalibratedRanker]:
    """Return the rankers whose scores have a fitted temperature, by name."""
    blend, blend_with_llm = blends["without_llm"], blends["with_llm"]
    return {
        "cf": PartRanker("cf", blend.part_temperatures.get("cf", 1.0)),
        "blend": blend,
        "llm": PartRanker("llm", blend_with_llm.part_temperatures.get("llm", 1.0)),
        "with_llm": AmongRead(blend_with_llm, blend),
    }


def _of_part(part: str) -> Callable[[Blends, ScoringConfig], Ranker]:
    return lambda blends, settings: PartRanker(part)


def _of_blends(name: str) -> Callable[[Blends, ScoringConfig], Ranker]:
    return lambda blends, settings: _calibrated(blends)[name]


RANKERS: dict[str, Entry] = {
    "popularity": Entry("popularity", _of_part("popularity"), colour="#868c93"),
    "text": Entry("text similarity", _of_part("text"), colour="#b58900"),
    "cf": Entry("CF model", _of_blends("cf"), is_calibrated=True, colour="#2a78b5"),
    "alignment": Entry("projections alone", _of_part("alignment"), colour="#6c71c4"),
    "blend": Entry("blend without LLM", _of_blends("blend"), is_calibrated=True, colour="#2aa198"),
    "llm": Entry(
        "A-LLMRec",
        _of_blends("llm"),
        scores_catalogue=False,
        is_calibrated=True,
        asks_llm=True,
        colour="#d33682",
    ),
    "llm_floor": Entry("floor of A-LLMRec", _of_part("read"), scores_catalogue=False, colour="#c77ca3"),
    "with_llm": Entry(
        "blend with LLM",
        _of_blends("with_llm"),
        scores_catalogue=False,
        is_calibrated=True,
        asks_llm=True,
        colour="#8a3ffc",
    ),
    "served": Entry(
        "served order",
        served_order,
        scores_catalogue=False,
        is_calibrated=True,
        asks_llm=True,
        colour="#1a7f37",
    ),
}
"""Every ranker, in the order of a report."""

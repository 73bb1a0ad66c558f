"""Rankers by name: everything that can order candidate lists.

    a part of PARTS      the part alone (`allmrec.parts`): popularity, text, words, cf, llm …
    blend_without_llm    the weighted parts without the LLM
    lookup               the links between items with equal weights; nothing in it is trained
    llm_floor            the candidates that the LLM read, in drawn order; the others follow
    blend_with_llm       the weighted parts with the LLM, among the candidates that it read
    served               the order of a night under `scoring.order` and `scoring.mode`

A new part is a ranker by itself; any other new ranker is an entry of `RANKERS`. Evaluations, their reports
and pages, and comparisons have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from allmrec.config import ScoringConfig
from allmrec.parts import BLEND_WITH_LLM, BLEND_WITHOUT_LLM, LINKS, PARTS, Part
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rerankers import rerankers
from allmrec.ranking.served import AmongRead, CalibratedRanker, LLMFirst, PartRanker, ServedOrder


class Ranker(Protocol):
    """Orders candidates."""

    def scores(self, lists: CandidateLists) -> np.ndarray:
        """Return a score per candidate, [B, C] float64, higher is better; −inf beyond a user's candidates."""
        ...


Blends = Mapping[str, BlendWeights]
"""`with_llm` and `without_llm`."""


@dataclass(frozen=True)
class Entry:
    """A ranker, and where reports show it."""

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
    is_plotted: bool = False
    """Whether reports show it by popularity, and its probabilities, if any, beside the outcome."""
    has_examples: bool = False
    """Whether reports show its lists of the example users."""


def rankers(blends: Blends, settings: ScoringConfig) -> dict[str, Ranker]:
    """Return every ranker of `entries` by its name, in the order of a report."""
    return {name: entry.make(blends, settings) for name, entry in entries().items()}


def label_of(name: str) -> str:
    """Return a ranker's name in a report; its own name where the table lacks it."""
    entry = entries().get(name)
    return name if entry is None else entry.label


def colour_of(name: str) -> str:
    """Return a ranker's colour in a plot; that of an entry without one where the table lacks it."""
    entry = entries().get(name)
    return Entry.colour if entry is None else entry.colour


def served_order(blends: Blends, settings: ScoringConfig) -> ServedOrder:
    """Return the order of a night: `scoring.order` names the ranker, `scoring.mode` how the LLM is asked.

    Raises ValueError for `auto`, which `allmrec.ranking.decision.resolved` makes another one of; ConfigError
    for an unknown name in `scoring.rerankers`.
    """
    if settings.order == "auto":
        raise ValueError("scoring.order: auto, expected one that the bundle's decision resolved")
    blend = blends["without_llm"]
    entry = entries()[settings.order]
    named = cast(CalibratedRanker, entry.make(blends, settings))
    with_llm = named if entry.asks_llm else None
    return ServedOrder(
        blend=blend,
        without_llm=blend if entry.asks_llm else named,
        with_llm=with_llm if settings.mode == "rank" else LLMFirst(blend),
        recall=blend.recall,
        rerankers=rerankers(settings),
    )


def entries() -> dict[str, Entry]:
    """Return every ranker by its name, in the order of a report: first those without the LLM."""
    of_parts = {name: _entry_of(name, part) for name, part in PARTS.items()}
    without_llm = {name: entry for name, entry in of_parts.items() if not entry.asks_llm}
    blend = {BLEND_WITHOUT_LLM: RANKERS[BLEND_WITHOUT_LLM]}
    return without_llm | blend | of_parts | RANKERS


def _entry_of(name: str, part: Part) -> Entry:
    """Return the ranker of a part."""
    return Entry(
        part.label,
        _of_part(name),
        scores_catalogue=part.scores_catalogue,
        is_calibrated=part.is_calibrated,
        asks_llm=part.reads_llm,
        colour=part.colour,
        is_plotted=part.is_plotted,
    )


def _of_part(part: str) -> Callable[[Blends, ScoringConfig], PartRanker]:
    """Return the function that makes a part's ranker, with the temperature that training fitted for it."""
    blend = "with_llm" if PARTS[part].reads_llm else "without_llm"
    return lambda blends, settings: PartRanker(part, blends[blend].part_temperatures.get(part, 1.0))


def _blend_with_llm(blends: Blends) -> AmongRead:
    """Return the blend with the LLM among what it read, and the blend without it for the rest."""
    return AmongRead(blends["with_llm"], blends["without_llm"])


RANKERS: dict[str, Entry] = {
    BLEND_WITHOUT_LLM: Entry(
        "blend without LLM",
        lambda blends, settings: blends["without_llm"],
        is_calibrated=True,
        colour="#2aa198",
        is_plotted=True,
        has_examples=True,
    ),
    "lookup": Entry(
        "lookup, nothing trained",
        lambda blends, settings: BlendWeights(dict.fromkeys(LINKS, 1.0 / len(LINKS)), 0.0, 1.0, 0),
        colour="#6b705c",
    ),
    "llm_floor": Entry(
        "floor of A-LLMRec",
        lambda blends, settings: PartRanker("read"),
        scores_catalogue=False,
        colour="#c77ca3",
    ),
    BLEND_WITH_LLM: Entry(
        "blend with LLM",
        lambda blends, settings: _blend_with_llm(blends),
        scores_catalogue=False,
        is_calibrated=True,
        asks_llm=True,
        colour="#8a3ffc",
        is_plotted=True,
    ),
    "served": Entry(
        "served order",
        served_order,
        scores_catalogue=False,
        is_calibrated=True,
        asks_llm=True,
        colour="#1a7f37",
        is_plotted=True,
        has_examples=True,
    ),
}
"""The rankers that are no single part, in the order of a report."""

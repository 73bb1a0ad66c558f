"""The parts of a candidate's score, a row each, and the names of the orders made of them.

A part is one number per candidate. Retrieval, a filler (`allmrec.scoring.fillers`) or the LLM computes it. A
blend weighs it, and a ranker of the same name orders by it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

BLEND_WITH_LLM = "blend_with_llm"
BLEND_WITHOUT_LLM = "blend_without_llm"

LINKS = ("words", "brand", "together")
"""The parts that count what items share with a history, without any training (`allmrec.models.links`)."""

OLD_ORDERS = {"blend": BLEND_WITH_LLM, "without_llm": BLEND_WITHOUT_LLM}
"""Names of `scoring.order` until version 0.1.0 → their names now."""
OLD_DECISIONS = {"titles": BLEND_WITH_LLM, "without_llm": BLEND_WITHOUT_LLM}
"""Names of orders in stored decisions until version 0.1.0 → their names now."""
OLD_RANKERS = {"blend": BLEND_WITHOUT_LLM, "with_llm": BLEND_WITH_LLM}
"""Names of rankers in stored evaluations until version 0.1.0 → their names now."""


@dataclass(frozen=True)
class Part:
    """One number per candidate."""

    label: str
    """Its name in a report."""
    prior: float = 0.0
    """Its weight in a blend, temperature included, before any fit."""
    column: str | None = None
    """Its column in `recommendations`."""
    candidate_column: str | None = None
    """Its column in `candidates`; retrieval fills it. None: a filler or the LLM does."""
    scores_catalogue: bool = True
    """Whether it is known for every item, not only for retrieved ones."""
    is_calibrated: bool = False
    """Whether training fits a temperature of its order. Such an order can be served."""
    reads_llm: bool = False
    """Whether the LLM computes it, for the candidates that it reads."""
    colour: str = "#888888"
    """Colour of its ranker in a plot, on a light and on a dark background."""
    is_plotted: bool = False
    """Whether reports show its ranker by popularity."""


PARTS: dict[str, Part] = {
    "popularity": Part("popularity", colour="#868c93", is_plotted=True),
    "cf": Part(
        "CF model",
        prior=1.0,
        column="cf_score",
        candidate_column="cf_scores",
        is_calibrated=True,
        colour="#2a78b5",
        is_plotted=True,
    ),
    "text": Part(
        "text similarity",
        prior=0.3,
        column="text_score",
        candidate_column="text_scores",
        colour="#b58900",
        is_plotted=True,
    ),
    "alignment": Part("projections alone", prior=0.5, column="alignment_score", colour="#6c71c4"),
    "words": Part("title words in common", prior=0.25, colour="#a0522d"),
    "brand": Part("same brand", prior=0.15, colour="#708238"),
    "together": Part("had together", prior=0.2, colour="#00868b"),
    "llm": Part(
        "A-LLMRec",
        prior=0.1,
        scores_catalogue=False,
        is_calibrated=True,
        reads_llm=True,
        colour="#d33682",
    ),
}
"""Name → part. Priors are about the weights of the first measured blends."""


def served_parts() -> tuple[str, ...]:
    """Return the parts whose order alone can be served."""
    return tuple(name for name, part in PARTS.items() if part.is_calibrated)


def reads_llm(order: str) -> bool:
    """Return whether an order, a part or a blend, needs the LLM."""
    return PARTS[order].reads_llm if order in PARTS else order == BLEND_WITH_LLM

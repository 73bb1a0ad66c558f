"""Settings of the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from allmrec.config.sections.section import Count, Fraction, Section, Text, without_repetition

Protocols = Annotated[
    tuple[Literal["retrieved", "catalogue", "uniform", "popular"], ...],
    Field(min_length=1),
    without_repetition("evaluation.protocols"),
]


class EvaluationConfig(Section):
    """The evaluation protocol."""

    protocols: Protocols = ("retrieved", "catalogue", "uniform", "popular")
    """Competitors of a held-out item: `retrieved`, the user's own list, as a night orders it; `catalogue`,
    all items; `uniform` and `popular`, sampled items that the user never had."""
    exclude_seen: bool = True
    """Leave items that the user had out of the ranked catalogue."""
    max_history: Annotated[int, Field(ge=0)] | None = None
    """Cut every history to its newest items, as if the users were new: 3, 2, 1 or 0, say; null: they are
    whole. What the user had before stays out of the lists."""
    text: Literal["whole", "noisy", "missing"] = "whole"
    """Texts of the catalogue: as they are; `noisy`, with words lost and misspelled; or `missing`. Training
    had them whole."""
    text_share: Fraction = 1.0
    """Share of the items whose texts are noisy or missing."""
    trained_on: Text | None = None
    """`tables.root` of another shop, whose bundle for evaluation is tried on this one: it knows the items by
    their texts alone; null: this shop's own bundle."""
    num_users: Count | None = None
    """Number of evaluated users, a seeded sample; null: all. Every model is evaluated on the same users."""
    num_negatives: Count = 19
    """Sampled items per user, beside the true one, that the user never had."""
    num_sampled_users: Count | None = 1000
    """How many of the evaluated users get sampled negatives, of whom the LLM reads every one; null: all."""
    tail_share: Fraction = 0.35
    """Share of items that are warm (most training interactions) and share that are cold (fewest)."""

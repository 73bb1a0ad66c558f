"""Settings of user sequences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from allmrec.config.sections.section import Count, Section


def _lowest_first(ratings: tuple[float, float]) -> tuple[float, float]:
    """Raise ValueError if the first rating is higher than the second one."""
    if ratings[0] > ratings[1]:
        raise ValueError(f"sequences.rating_range: {list(ratings)}, expected the lowest rating first")
    return ratings


class SequencesConfig(Section):
    """How interactions become user sequences."""

    max_history: Count = 50
    """Maximum number of interactions in a user's sequence; the newest are kept."""
    event_types: tuple[str, ...] | None = None
    """Event types that count; null: all."""
    min_rating: float | None = None
    """Lowest rating that counts as positive; null: all count. Rows without a rating count. Seen items ignore
    it."""
    repeats: Literal["keep", "fold"] = "keep"
    """`keep`: an item may occur again; `fold`: only its newest interaction is kept."""
    rating_range: Annotated[tuple[float, float], AfterValidator(_lowest_first)] = (0.0, 10.0)
    """Lowest and highest valid rating; rows outside are rejected, by nights and by imports."""

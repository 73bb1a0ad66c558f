"""Settings of user sequences."""

from __future__ import annotations

from typing import Literal

from allmrec.config.sections.base import Count, Section


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

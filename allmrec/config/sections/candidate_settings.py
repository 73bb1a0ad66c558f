"""Settings of retrieval."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from allmrec.config.sections.section import Count, Section


class CandidatesConfig(Section):
    """How candidates are retrieved for each user."""

    num_candidates: Count = 20
    """Candidates per user."""
    text_quota: Annotated[int, Field(ge=0)] = 2
    """Candidates per user reserved for rare items, found by the trained projections and the text, without the
    CF model."""
    rare_below: Count = 5
    """An item with fewer interactions than this in training is rare."""
    exclude_seen: bool = True
    """Leave out every item that the user has in the log before the cut-off."""

"""Limits of the gates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from allmrec.config.sections.section import Fraction, NonNegative, Section


class GatesConfig(Section):
    """Rules that a night must keep to be published; null turns one off, `--override` breaks it once."""

    max_lost_users: Annotated[int, Field(ge=0)] | None = 0
    """Users who have candidates and no list, or a list and no place in the night."""
    max_unservable_share: Fraction | None = 0.05
    """Share of the night's users for whom nothing could be recommended."""
    max_fallback_share: Fraction | None = 0.1
    """Share of the users the LLM was asked about whose list it could not order (`prompt_too_long`,
    `out_of_memory`, `non_finite_score`, `no_candidate`)."""
    max_short_share: Fraction | None = 0.1
    """Share of the served users with fewer items than a feed or an e-mail has slots."""
    max_disordered_lists: Annotated[int, Field(ge=0)] | None = 0
    """Lists with a score that is no number or higher than the one before it, or with a gap in the ranks.
    With `scoring.rerankers` a score may be higher."""
    max_forbidden_items: Annotated[int, Field(ge=0)] | None = 0
    """Recommendations of items that are not available, or that the user has seen (where
    `candidates.exclude_seen` is set)."""
    max_rejected_share: Fraction | None = 0.25
    """Share of the rows of log and catalogue that were rejected."""
    max_users_change: NonNegative | None = 0.5
    """Change of the number of served users against the last published night, as a share of it."""
    max_coverage_drop: Fraction | None = 0.5
    """Drop of the number of different recommended items against the last published night, as a share."""
    max_top1_rise: Fraction | None = 0.2
    """Rise of the share of users who have the most frequent first item, against the last published night."""
    max_unpublished_share: Fraction | None = 0.05
    """Share of the served users without any item left when e-mails and feeds are written."""
    max_capped_share: Fraction | None = 1.0
    """Share of the e-mails with more items of a group than `publish.max_per` allows. The default stops no
    night, because a shop may have one category."""

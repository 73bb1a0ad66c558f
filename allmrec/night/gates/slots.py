"""The rules on e-mails and feeds, checked before the first of their tables is written."""

from __future__ import annotations

from dataclasses import dataclass

from allmrec.night.gates.registry import Measured, rule, share


@dataclass(frozen=True)
class FilledSlots:
    """Numbers of users when e-mails and feeds are about to be written."""

    num_served: int
    """Users with a list."""
    num_published: int
    """Users with an item that can still be had."""


@rule("max_unpublished_share", advice="look at items.available", guards="email_recommendations")
def unpublished_users(slots: FilledSlots) -> Measured:
    """Share of the served users without any item left."""
    without = slots.num_served - slots.num_published
    words = f"{without:,} of {slots.num_served:,} users have no recommended item that can still be had"
    return Measured(share(without, slots.num_served), words)

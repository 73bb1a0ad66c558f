"""The rules on e-mails and feeds, checked before the first of their tables is written."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.night.gates.registry import Measured, rule, share


@dataclass(frozen=True)
class FilledSlots:
    """Numbers of users when e-mails and feeds are about to be written."""

    num_served: int
    """Users with a list."""
    num_published: int
    """Users with an item that can still be had."""
    num_mailed: int = 0
    """Those of them who get an e-mail."""
    num_over_cap: int = 0
    """E-mails with more items of a group than `publish.max_per` allows."""
    num_near_duplicates: int = 0
    """E-mails with two items that are nearly the same."""
    num_again: int = 0
    """Slots of e-mails with an item that was put back, because an e-mail had it lately."""

    @classmethod
    def of(cls, num_served: int, lists: DataFrame) -> FilledSlots:
        """Return the numbers of the lists, one row per user.

        They have `choice` (`slot_choice.CHOICE`) and `is_mailed`.
        """
        is_mailed = F.col("is_mailed")
        row = lists.agg(
            F.count("choice"),
            F.count_if(is_mailed),
            F.count_if(is_mailed & F.col("choice.over_cap")),
            F.count_if(is_mailed & F.col("choice.near_duplicates")),
            F.coalesce(F.sum(F.when(is_mailed, F.col("choice.shown"))), F.lit(0)),
        ).first()
        assert row is not None
        return cls(num_served, *row)

    def counts(self) -> dict[str, int]:
        """Return the numbers for `runs`."""
        return {
            "email_users": self.num_mailed,
            "feed_users": self.num_published,
            "emails_over_cap": self.num_over_cap,
            "emails_with_near_duplicates": self.num_near_duplicates,
            "email_slots_again": self.num_again,
        }


@rule("max_unpublished_share", advice="look at items.available", guards="email_recommendations")
def unpublished_users(slots: FilledSlots) -> Measured:
    """Share of the served users without any item left."""
    without = slots.num_served - slots.num_published
    words = f"{without:,} of {slots.num_served:,} users have no recommended item that can still be had"
    return Measured(share(without, slots.num_served), words)


@rule(
    "max_capped_share",
    advice="raise candidates.num_candidates, or publish.max_per",
    guards="email_recommendations",
)
def emails_over_cap(slots: FilledSlots) -> Measured:
    """Share of the e-mails that break a cap of `publish.max_per`."""
    words = f"{slots.num_over_cap:,} of {slots.num_mailed:,} e-mails have more of a kind than publish.max_per"
    return Measured(share(slots.num_over_cap, slots.num_mailed), words)

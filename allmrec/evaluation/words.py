"""Words of a report: protocols, groups of users, headings, remarks."""

from __future__ import annotations

from dataclasses import dataclass

from allmrec.evaluation.condition import condition_and_group
from allmrec.evaluation.condition import in_words as condition_in_words
from allmrec.evaluation.report import HEADLINE

TITLES = {
    "retrieved": "own retrieved list",
    "catalogue": "whole catalogue",
    "uniform": "uniform negatives",
    "popular": "popular negatives",
}
IN_WORDS = {
    "all": "all users",
    "found": "the order alone: users whose next item was retrieved",
    "warm": "users whose next item is warm",
    "middle": "users whose next item is middle",
    "cold": "users whose next item is cold",
    "lists": "whole lists of the sampled users",
}
"""Group of users → its words."""
RECALL = "retrieval's recall"
COMPARISONS = "the served order against the others, by the same users"
COSTS = "quality against cost"
BY_POPULARITY = f"{HEADLINE} by the popularity of the next item"
CALIBRATION = "do probabilities mean what they say?"
CALIBRATION_COLUMNS = ("stated", "came true", "candidates")
INTERVALS = "95 % bootstrap intervals"
NOBODY = "No user is in this scenario."


@dataclass(frozen=True)
class Lists:
    """Facts about the lists that a reader needs for the figures."""

    num_candidates: int
    """Number of candidates of a retrieved list."""
    llm_candidates: int | None
    """Number of its candidates that the LLM reads; None: all."""
    catalogue_without_seen: bool
    """Whether the ranked catalogue lacks the items that a user had."""
    num_users: int
    num_seen_before: int
    """Users whose next item `candidates.exclude_seen` drops, because they had it before."""
    num_unavailable: int
    """Other users with an unavailable next item."""


def remarks(protocol: str, group: str, lists: Lists) -> list[str]:
    """Return remarks on the figures of a group of users."""
    if protocol == "catalogue" and group == "all":
        seen = "left out" if lists.catalogue_without_seen else "ranked too"
        return [
            f"Items that a user had before are {seen}; unavailable items are left out.",
            "A-LLMRec, its floor and the served order re-rank the retrieved list.",
        ]
    if protocol != "retrieved" or group not in ("all", "found"):
        return []
    found = [
        f"End to end: a next item that is not among the {lists.num_candidates} retrieved is a miss.",
        _ceiling(lists),
        "The LLM is asked about every user, however long ago the last event was.",
    ]
    read = "all" if lists.llm_candidates is None else f"the best {lists.llm_candidates} (by the blend)"
    about_llm = (
        f"A-LLMRec orders {read} of the candidates, the others follow in drawn order. "
        "Its floor is the same with those candidates in drawn order too."
    )
    return [*(found if group == "all" else []), about_llm]


def _ceiling(lists: Lists) -> str:
    """Return how many next items a list can contain, as a sentence."""
    num_hidden = lists.num_seen_before + lists.num_unavailable
    return (
        f"A list can hold the next item of {lists.num_users - num_hidden:,} of {lists.num_users:,} users: "
        f"{lists.num_seen_before:,} had it before, {lists.num_unavailable:,} want an unavailable item."
    )


def users_in_words(scenario: str) -> str:
    """Return the users of a scenario and its condition, in words."""
    condition, group = condition_and_group(scenario)
    return "; ".join(part for part in (IN_WORDS[group], condition_in_words(condition)) if part)


def place_of(protocol: str, scenario: str) -> str:
    """Return the lists of a comparison, in words."""
    return TITLES[protocol] + (", order alone" if scenario == "found" else "")

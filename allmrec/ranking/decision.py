"""Whether the LLM is worth its cost: the comparison of a bundle's orders, made in training, and its outcome.

`scoring.order: auto` serves the cheapest order that no other one beats for certain. Orders are compared by
NDCG@10 on the same held-back users, each half of them ordered by weights that were fitted on the other half;
what is certain is a 95 % interval of the difference above 0. An owner can force any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from allmrec.config import ScoringConfig
from allmrec.parts import BLEND_WITH_LLM, BLEND_WITHOUT_LLM, OLD_DECISIONS

IN_WORDS = {
    BLEND_WITHOUT_LLM: "the blend without the LLM",
    BLEND_WITH_LLM: "the blend with the LLM",
}


@dataclass(frozen=True)
class ComparedOrder:
    """One order on the validation users."""

    name: str
    tokens_per_user: float
    """What the LLM reads."""
    ndcg: float
    """NDCG@10."""
    low: float
    high: float
    """95 % interval of its difference from the first order, the one without the LLM; 0 and 0 for that."""


@dataclass(frozen=True)
class Decision:
    """Which order `auto` serves, and why."""

    served: str
    compared: tuple[ComparedOrder, ...]
    """In order of their cost."""
    num_users: int
    """Users whose held-back item was retrieved, and whose lists every order has ordered."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Decision:
        """Return the decision of a JSON object made by `to_json`, also of one with old names."""
        compared = tuple(
            ComparedOrder(**order | {"name": OLD_DECISIONS.get(order["name"], order["name"])})
            for order in fields["compared"]
        )
        served = fields["served"]
        return cls(OLD_DECISIONS.get(served, served), compared, fields["num_users"])

    def __str__(self) -> str:
        """Return it as one sentence."""
        if not self.num_users:
            return f"{IN_WORDS[self.served]} is served: there was no validation user to compare orders on"
        first, *others = self.compared
        said = [f"{IN_WORDS[first.name]} has NDCG@10 {first.ndcg:.3f}"]
        said += [
            f"{IN_WORDS[order.name]} {order.ndcg:.3f} ({order.ndcg - first.ndcg:+.3f} "
            f"[{order.low:+.3f}, {order.high:+.3f}], {order.tokens_per_user:.0f} tokens a user)"
            for order in others
        ]
        users = f"on the lists of {self.num_users:,} validation users"
        return f"{IN_WORDS[self.served]} is served: {users} " + ", ".join(said)


def cheapest_unbeaten(names: Sequence[str], beats: set[tuple[str, str]]) -> str:
    """Return the first of `names`, cheapest first, that no other one beats; (a, b) in `beats`: a beats b.

    The last one left where each is beaten by some other.
    """
    for name in names:
        if not any((other, name) in beats for other in names):
            return name
    return names[-1]


def resolved(settings: ScoringConfig, decision: Decision | None) -> ScoringConfig:
    """Return the settings with the order that `auto` stands for.

    It is the bundle's decision; a bundle from before there were decisions, and a mode in which the LLM
    writes, ask the LLM.
    """
    if settings.order != "auto":
        return settings
    is_left_out = settings.mode == "rank" and decision is not None and decision.served == BLEND_WITHOUT_LLM
    return settings.model_copy(update={"order": BLEND_WITHOUT_LLM if is_left_out else BLEND_WITH_LLM})

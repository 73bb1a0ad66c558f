"""Rules of a shop on what is published, and the contradictions between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from itertools import combinations
from typing import Literal

from pydantic import model_validator

from allmrec.config.sections.section import Count, Fraction, Section, Text

NEEDED = {
    "exclude": ("where",),
    "hide": ("where", "users"),
    "bury": ("where",),
    "boost": ("where", "share"),
    "pin": ("item", "slot"),
}
"""Kind of a rule → the keys that it needs."""
_ALLOWED = {**NEEDED, "pin": ("item", "slot", "users")}
_KEYS = ("where", "item", "users", "slot", "share")
_TEXTS = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_PASSING = re.compile(
    r"\b(current_\w+|curdate|localtimestamp|now|unix_timestamp|rand\w*|uuid|shuffle|select)\b", re.IGNORECASE
)


def require_lasting(name: str, condition: str | None) -> None:
    """Raise ValueError, with the name, where a condition in SQL may change its result for a row."""
    found = _PASSING.search(_TEXTS.sub("''", condition or ""))
    if found:
        raise ValueError(
            f"{name}: {condition}, which contains {found[0]}, expected a condition whose result stays the "
            "same, so that a second run writes the same rows; compare columns with values"
        )


class RuleConfig(Section):
    """A rule on items and users."""

    name: Text
    """Its name in slots, in `runs` and in errors."""
    kind: Literal["exclude", "hide", "bury", "boost", "pin"]
    """What the rule does."""
    where: Text | None = None
    """Condition in SQL on the table of items."""
    item: Text | None = None
    """Id of the pinned item."""
    users: Text | None = None
    """Condition in SQL on the table of users."""
    slot: Count | None = None
    """Slot of the pinned item, from 1."""
    share: Fraction | None = None
    """Share of an e-mail's slots."""
    first_date: date | None = None
    """First run date on which the rule applies; null: since ever."""
    last_date: date | None = None
    """Last run date on which the rule applies; null: for ever."""

    @model_validator(mode="after")
    def _check(self) -> RuleConfig:
        needed = NEEDED[self.kind]
        missing = [key for key in needed if getattr(self, key) is None]
        extra = [key for key in _KEYS if getattr(self, key) is not None and key not in _ALLOWED[self.kind]]
        if missing:
            raise ValueError(
                f"rule {self.name}: kind {self.kind} without {', '.join(missing)}, "
                f"expected {' and '.join(needed)}; add {' and '.join(missing)}"
            )
        if extra:
            raise ValueError(
                f"rule {self.name}: {', '.join(extra)} beside kind {self.kind}, "
                f"expected {' and '.join(_ALLOWED[self.kind])}; remove {' and '.join(extra)}"
            )
        require_lasting(f"rule {self.name}: where", self.where)
        require_lasting(f"rule {self.name}: users", self.users)
        if self._first() > self._last():
            raise ValueError(
                f"rule {self.name}: first_date {self.first_date} after last_date {self.last_date}, "
                "expected at or before it; exchange them"
            )
        return self

    def is_in_force(self, run_date: date) -> bool:
        """Return whether the rule applies on a run date. First and last date are included."""
        return self._first() <= run_date <= self._last()

    def overlaps(self, other: RuleConfig) -> bool:
        """Return whether both rules apply on some date."""
        return max(self._first(), other._first()) <= min(self._last(), other._last())

    def _first(self) -> date:
        return self.first_date or date.min

    def _last(self) -> date:
        return self.last_date or date.max


def require_consistent(rules: Sequence[RuleConfig], email_slots: int) -> None:
    """Raise ValueError where rules contradict each other whatever tables contain, or name no slot."""
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise ValueError(f"rule {rule.name}: two of this name, expected one; rename one of them")
        if rule.slot is not None and rule.slot > email_slots:
            raise ValueError(
                f"rule {rule.name}: slot {rule.slot}, expected at most publish.email_slots ({email_slots}); "
                "pin to a lower slot"
            )
        _require_shares(rule, rules)
    for one, other in rival_pins(rules):
        if one.users is None or other.users is None or one.users == other.users:
            raise ValueError(contradiction(one, other))


def rival_pins(rules: Sequence[RuleConfig]) -> list[tuple[RuleConfig, RuleConfig]]:
    """Return the pairs of pins that no user may have both: of one slot, or of one item."""
    pins = [rule for rule in rules if rule.kind == "pin"]
    return [
        (one, other)
        for one, other in combinations(pins, 2)
        if one.overlaps(other) and (one.slot == other.slot or one.item == other.item)
    ]


def contradiction(one: RuleConfig, other: RuleConfig) -> str:
    """Return the error of two pins for the same users."""
    return (
        f"rules {one.name} and {other.name}: pin item {one.item} to slot {one.slot} and item {other.item} to "
        f"slot {other.slot} for the same users on the same dates, expected different items and slots; change "
        "the slot, users or dates of one of them"
    )


def _require_shares(boost: RuleConfig, rules: Sequence[RuleConfig]) -> None:
    """Raise ValueError where the boosts on the first date of one have more than all slots."""
    if boost.share is None:
        return
    day = boost.first_date or date.min
    together = [rule for rule in rules if rule.share is not None and rule.is_in_force(day)]
    total = sum(rule.share or 0.0 for rule in together)
    if total > 1 + 1e-9:
        raise ValueError(
            f"rules {', '.join(rule.name for rule in together)}: shares of {total:g} together, expected at "
            "most 1 on every date; lower them"
        )

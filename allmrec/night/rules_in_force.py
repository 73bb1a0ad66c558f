"""The shop's rules that apply on a run date: those of the configuration and those of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from math import floor
from typing import Any

from allmrec.config import RuleConfig, SourceConfig, from_stored
from allmrec.config.sections.rule_settings import require_consistent
from allmrec.data.columns import midnight
from allmrec.errors import ConfigError
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.tables.sources import Source


@dataclass(frozen=True)
class InForce:
    """The rules of a run date, and the condition on recipients."""

    rules: tuple[RuleConfig, ...] = ()
    recipients: str | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    """Version of the table of rules by `Source.key`, for `runs.input_versions`; empty without one."""

    @classmethod
    def of(cls, night: Night) -> InForce:
        """Return the rules of the configuration, then those of the table by name.

        The table is read at its newest version, for a past date at its version at the end of that date.
        Raises ConfigError where a row is no rule, or rules contradict each other; TableError where the table
        cannot be read.
        """
        context = night.context
        settings = context.config.publish
        rules = list(settings.rules)
        versions = {}
        source = _source(context)
        if source is not None:
            version = _version(source, night.run_date)
            versions = {} if version is None else {source.key: version}
            rows = [row.asDict() for row in source.read(version).collect()]
            rules += sorted(rules_of(rows, source.place, settings.email_slots), key=lambda rule: rule.name)
        found = tuple(rule for rule in rules if rule.is_in_force(night.run_date))
        try:
            require_consistent(found, settings.email_slots)
        except ValueError as error:
            raise ConfigError(f"rules of {night.run_date}: {error}") from None
        return cls(found, settings.recipients, versions)

    def named(self, *kinds: str) -> list[str]:
        """Return the names of the rules of these kinds, in order."""
        return [rule.name for rule in self.rules if rule.kind in kinds]

    def pins(self) -> list[RuleConfig]:
        """Return the pins."""
        return [rule for rule in self.rules if rule.kind == "pin"]

    def floors(self, num_slots: int) -> dict[str, int]:
        """Return how many slots each boost gets at least: its share rounded down, at least 1."""
        shares = {rule.name: rule.share or 0.0 for rule in self.rules if rule.kind == "boost"}
        return {name: max(1, floor(share * num_slots + 1e-9)) for name, share in shares.items()}

    def has_user_conditions(self) -> bool:
        """Return whether the table of users is needed."""
        return self.recipients is not None or any(rule.users is not None for rule in self.rules)

    def marks(self) -> dict[str, Any]:
        """Return what of the rules decides rows, for the fingerprint; empty without rules."""
        rules = [rule.model_dump(mode="json", exclude={"first_date", "last_date"}) for rule in self.rules]
        return {"rules": rules} if rules else {}


def rules_of(rows: list[dict[str, Any]], place: str, email_slots: int) -> list[RuleConfig]:
    """Return the rules of a table's rows; columns that are no key of a rule are ignored.

    Raises ConfigError, naming the row, where one is no rule.
    """
    found: list[RuleConfig] = []
    for row in rows:
        keys = {key: row[key] for key in RuleConfig.model_fields if row.get(key) is not None}
        tree = {
            "publish": {"email_slots": email_slots, "rules": [keys]},
            "scoring": {"top_k": max(email_slots, 1)},
        }
        try:
            found += from_stored(tree).publish.rules
        except ConfigError as error:
            said = str(error).replace("publish.rules[0].", "")
            raise ConfigError(f"tables.rules: {place}: row {keys.get('name')}: {said}") from None
    return found


def _source(context: Context) -> Source | None:
    """Return the table of rules, None where none is configured."""
    place = context.config.tables.rules
    if place is None:
        return None
    settings = SourceConfig(path=place) if "/" in place else SourceConfig(table=place)
    return Source(context.tables, "rules", settings)


def _version(source: Source, run_date: date) -> int | None:
    """Return the version to read; None where the table has no versions."""
    end = midnight(run_date + timedelta(days=1))
    if end > datetime.now(timezone.utc):
        return source.version()
    # A history that begins later, or none: the rules have dates themselves.
    at_end = source.version_at(end)
    return source.version() if at_end is None else at_end

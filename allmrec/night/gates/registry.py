"""The registry of rules, and the check that stops a night."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from allmrec.errors import GateError
from allmrec.runtime.night import StepRun


@dataclass(frozen=True)
class Measured:
    """What a rule measured, and in words of what."""

    value: float
    words: str
    """What the value is, with the numbers behind it."""


@dataclass(frozen=True)
class Rule:
    """A rule: what it measures may be at most its setting."""

    name: str
    """The key in the section `gates`."""
    advice: str
    """What to do about a broken rule, before it is overridden."""
    guards: str
    """The table before which the rule is checked. A broken rule keeps this table and later ones unwritten."""
    measure: Callable[[Any], Measured | None]
    """From the night, `ScoredNight` or `FilledSlots`. None without anything to measure."""


RULES: dict[str, Rule] = {}
"""Every rule by its name, in the order in which messages name broken ones."""

Function = TypeVar("Function", bound=Callable[[Any], Measured | None])


def rule(name: str, *, advice: str, guards: str) -> Callable[[Function], Function]:
    """Return the decorator that registers a function as a `Rule`.

    It raises ValueError where the name is taken.
    """

    def register(function: Function) -> Function:
        if name in RULES:
            raise ValueError(f"gates.{name}: a second rule of this name, expected one")
        RULES[name] = Rule(name, advice, guards, function)
        return function

    return register


def measure(table: str, night: Any) -> dict[str, Measured]:
    """Return by name what the rules that guard `table` measure.

    `night` is the object that these rules take: a `ScoredNight` for `recommendations`, `FilledSlots` for
    `email_recommendations`.
    """
    found = {one.name: one.measure(night) for one in RULES.values() if one.guards == table}
    return {name: measured for name, measured in found.items() if measured is not None}


def check(run: StepRun, measured: Mapping[str, Measured]) -> None:
    """Note what was measured in the step's record, and raise GateError where a rule is broken.

    `measured` is by name. A rule whose setting is null is not checked. A broken one that `--override` names
    is noted and passed.
    """
    run.gates.update({name: float(one.value) for name, one in measured.items()})
    context = run.night.context
    limits = context.config.gates.model_dump()
    broken = [name for name, one in measured.items() if limits[name] is not None and one.value > limits[name]]
    run.overridden += [name for name in broken if name in context.options.override]
    for name in run.overridden:
        run.report(f"gate {name}: broken, and overridden")
    failed = [name for name in broken if name not in context.options.override]
    run.broken += failed
    if failed:
        rules = "; ".join(
            f"gates.{name}: {measured[name].words}, {measured[name].value:.4g} where at most "
            f"{limits[name]:.4g} is allowed ({RULES[name].advice})"
            for name in failed
        )
        options = " ".join(f"--override {name}" for name in failed)
        raise GateError(
            f"night of {run.night.run_date}: {rules}; nothing of it was published; "
            f"to publish all the same: {options}"
        )


def share(part: float, whole: float) -> float:
    """Return part / whole; 0 where there is nothing."""
    return part / whole if whole else 0.0


def reference() -> str:
    """Return the rules as a Markdown table, for jobs/README.md."""
    rows = ["| rule | checked before | what to do where it is broken |", "|---|---|---|"]
    rows += [f"| `gates.{one.name}` | `{one.guards}` | {one.advice} |" for one in RULES.values()]
    return "\n".join(rows) + "\n"

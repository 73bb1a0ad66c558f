"""The gates: rules of the section `gates` that a night must keep before anything of it is published.

A rule is a function with the decorator `rule`, in the file of the table that it guards.
"""

from allmrec.night.gates import recommendations
from allmrec.night.gates.registry import RULES, Measured, check, measure, reference, rule
from allmrec.night.gates.scored_night import ScoredNight, last_published
from allmrec.night.gates.slots import FilledSlots

__all__ = [
    "RULES",
    "FilledSlots",
    "Measured",
    "ScoredNight",
    "check",
    "last_published",
    "measure",
    "recommendations",
    "reference",
    "rule",
]

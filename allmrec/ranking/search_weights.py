"""The weights of the signals in the search of the catalogue.

`allmrec.training.order.fit_retrieval` fits them, `allmrec.scoring.signals` searches with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SearchWeights:
    """Fitted weights of retrieval."""

    weights: Mapping[str, float]
    """Signal → weight ≥ 0."""
    unknown_offset: float
    """Added for an item that the CF model does not know."""
    num_users: int
    """Users the weights were fitted on."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchWeights:
        """Return the weights of a JSON object made by `to_json`.

        Additional keys of earlier versions are ignored. Raises KeyError where a key is missing.
        """
        return cls(values["weights"], values["unknown_offset"], values["num_users"])

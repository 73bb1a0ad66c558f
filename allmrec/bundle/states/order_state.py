"""The state of the order: weights of the search, blends, the decision about the LLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allmrec.bundle.contents import check_blends, check_decision, check_search, reading
from allmrec.bundle.states.state import NewItems, State, Stored
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.decision import Decision
from allmrec.ranking.search_weights import SearchWeights

BLENDS = "blend.json"
DECISION = "decision.json"
SEARCH = "retrieval"
"""Key of the search's weights in `BLENDS`, beside the blends by name."""


@dataclass(frozen=True)
class FittedOrder(State):
    """The weights that were fitted on held-back items."""

    name = "order"
    files = (BLENDS, DECISION)

    search: SearchWeights | None = None
    """None: the catalogue is searched by the weights' prior (bundles of earlier versions)."""
    blends: Mapping[str, BlendWeights] = field(default_factory=dict)
    """`with_llm` and `without_llm`."""
    decision: Decision | None = None
    """The order of `scoring.order: auto`. None: with the LLM (bundles of earlier versions)."""

    def save(self, folder: Path) -> None:
        """Write the weights, and the decision if it exists."""
        values: dict[str, Any] = {name: blend.to_json() for name, blend in self.blends.items()}
        if self.search is not None:
            values[SEARCH] = self.search.to_json()
        (folder / BLENDS).write_text(json.dumps(values, indent=1, sort_keys=True), encoding="utf-8")
        if self.decision is not None:
            text = json.dumps(self.decision.to_json(), indent=1)
            (folder / DECISION).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, stored: Stored) -> FittedOrder | None:
        """Return the state of a stored bundle; None: its training is not finished.

        Raises BundleError where a file has wrong content.
        """
        folder = stored.folder
        is_finished = bool(stored.manifest.purpose)
        if not is_finished and not (folder / BLENDS).exists():
            return None
        with reading(folder, BLENDS):
            values = json.loads((folder / BLENDS).read_text(encoding="utf-8"))
            search = SearchWeights.from_json(values.pop(SEARCH)) if SEARCH in values else None
            blends = {name: BlendWeights.from_json(fields) for name, fields in values.items()}
            if search is not None:
                check_search(search)
            if is_finished:
                check_blends(blends)
        return cls(search, blends, decision_of(folder))

    def extended(self, new: NewItems) -> FittedOrder:
        """Return the same weights."""
        return self

    def transferred(self, new: NewItems) -> FittedOrder:
        """Return the same weights."""
        return self


def decision_of(folder: Path) -> Decision | None:
    """Return the decision of a bundle in `folder`; None: it has no decision.

    The bundle is not loaded. Raises BundleError where the file has wrong content.
    """
    path = folder / DECISION
    if not path.exists():
        return None
    with reading(folder, path.name):
        decision = Decision.from_json(json.loads(path.read_text(encoding="utf-8")))
        check_decision(decision)
    return decision

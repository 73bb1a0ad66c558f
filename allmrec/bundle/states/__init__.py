"""States: the trained parts of a bundle, a class each, and their table.

A bundle is saved, loaded, extended and transferred state by state, in the order of `STATES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from allmrec.bundle.states.alignment_state import AlignmentState
from allmrec.bundle.states.cf_state import CFState
from allmrec.bundle.states.link_state import LinkState
from allmrec.bundle.states.order_state import FittedOrder
from allmrec.bundle.states.projection_state import ProjectionState
from allmrec.bundle.states.state import NewItems, State, Stored, state_of
from allmrec.bundle.states.title_state import TitleState

__all__ = [
    "STATES",
    "AlignmentState",
    "CFState",
    "FittedOrder",
    "LinkState",
    "NewItems",
    "ProjectionState",
    "State",
    "Stored",
    "TitleState",
    "child_states",
    "loaded_states",
    "state_of",
]

STATES: dict[str, type[State]] = {
    CFState.name: CFState,
    AlignmentState.name: AlignmentState,
    TitleState.name: TitleState,
    ProjectionState.name: ProjectionState,
    LinkState.name: LinkState,
    FittedOrder.name: FittedOrder,
}
"""States by name. A state reads only the states before it."""


def loaded_states(stored: Stored) -> dict[str, State]:
    """Return the states of a stored bundle.

    Raises BundleError where a file has wrong content.
    """
    loaded = {name: kind.load(stored) for name, kind in STATES.items()}
    return {name: state for name, state in loaded.items() if state is not None}


def child_states(new: NewItems, change: Callable[[State, NewItems], State]) -> dict[str, State]:
    """Return the states of a child: each state of the parent, changed by `change`.

    `change` calls `State.extended` or `State.transferred`.
    """
    states: dict[str, State] = {}
    for name in STATES:
        if name in new.parent:
            states[name] = change(new.parent[name], replace(new, states=states))
    return states

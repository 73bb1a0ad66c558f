"""One of each thing that a table of the package holds, as somebody would add it: a class or a function each.

Spark's workers import this module, and register the things while they run a function of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from allmrec.parts import PARTS, Part
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import RANKERS, Entry
from allmrec.ranking.rerankers import RERANKERS
from allmrec.ranking.served_scores import ServedScores
from allmrec.runtime.listeners import LISTENERS
from allmrec.runtime.runs import RunRow
from allmrec.scoring.assortment import AskedUsers, Assortment
from allmrec.scoring.fillers import FILLERS, Filler, Users
from allmrec.scoring.sources import SOURCES


class NewestItems:
    """A source of the two items with the highest item_idx that the user has not seen."""

    name = "newest"
    quota = 2

    def __init__(self, assortment: Assortment) -> None:
        self.newest_first = assortment.items[::-1]

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        found = np.zeros((len(users), wanted), dtype=np.int64)
        for row in range(len(users)):
            seen = users.seen.items[users.seen.rows == row]
            free = self.newest_first[~np.isin(self.newest_first, seen)][:wanted]
            found[row, : len(free)] = free
        return found


class ReversedStart:
    """A re-ranker that reverses the first ten places."""

    def places(
        self, lists: CandidateLists, order: ServedScores, places_BC: np.ndarray, vectors_BCS: np.ndarray
    ) -> np.ndarray:
        assert vectors_BCS.shape[:2] == lists.ids.shape
        start_B1 = np.minimum(lists.counts, 10)[:, None]
        return np.where(places_BC <= start_B1, start_B1 + 1 - places_BC, places_BC)


def lateness(users: Users, rows_N: np.ndarray, items_N: np.ndarray) -> np.ndarray:
    """A part: how late an item comes in the catalogue."""
    return items_N.astype(np.float64)


class Heard:
    """A listener that keeps what it hears."""

    rows: ClassVar[list[tuple[str, str]]] = []

    def started(self, row: RunRow) -> None:
        self.rows.append((row.step, row.status))

    def ended(self, row: RunRow) -> None:
        self.rows.append((row.step, row.status))


class EarliestFirst:
    """A ranker that is no single part."""

    def scores(self, lists: CandidateLists) -> np.ndarray:
        return np.where(lists.present, -lists.part("late"), -np.inf)


ADDED: tuple[tuple[dict[str, Any], str, Any], ...] = (
    (SOURCES, "newest", NewestItems),
    (RERANKERS, "reversed", lambda settings: ReversedStart()),
    (PARTS, "late", Part("lateness")),
    (FILLERS, "late", Filler(lateness)),
    (RANKERS, "early", Entry("earliness", lambda blends, settings: EarliestFirst())),
    (LISTENERS, "heard", Heard),
)
"""One of each thing that a table holds: the table, the name, the thing."""


def register() -> None:
    for table, name, thing in ADDED:
        table[name] = thing


def unregister() -> None:
    for table, name, _ in ADDED:
        table.pop(name, None)


def registering(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return `make`, whose functions for Spark register source and re-ranker in the worker that runs them."""

    def made(*args: Any, **kwargs: Any) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
        work = make(*args, **kwargs)

        def registered(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            register()
            try:
                yield from work(batches)
            finally:
                unregister()

        return registered

    return made

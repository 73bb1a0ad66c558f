"""Example users: history, next item, and the best of lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from allmrec.ranking.rankers import entries

NUM_HAD = 5
"""Number of items of a history that are shown, the newest."""
NUM_LISTED = 5
"""Number of items of a list that are shown, the first."""


class Listed(NamedTuple):
    """An item of an example's list."""

    title: str
    is_next: bool
    """Whether it is the held-out item."""


class Example(NamedTuple):
    """A user whose lists are shown."""

    user_id: str
    had: list[str]
    """Titles of the newest items of the history, oldest first."""
    came: str
    """Title of the held-out item."""
    lists: dict[str, list[Listed]]
    """The first items of the retrieved list, by ranker."""


def examples(
    lists: pd.DataFrame, titles: Mapping[str, str], histories: Mapping[str, Sequence[str]]
) -> list[Example]:
    """Return the users of `histories` who have lists.

    `lists` are rows of `evaluation_predictions`. `titles` and `histories` are by item id and by user id. An
    item without a title has its id.
    """
    retrieved = lists[lists["protocol"] == "retrieved"]
    found = []
    for user, history in histories.items():
        own = retrieved[retrieved["user_id"] == user].set_index("model")
        if own.empty:
            continue
        target = own["target"].iloc[0]
        by_ranker = {}
        for ranker in (name for name, entry in entries().items() if entry.has_examples):
            order = sorted(zip(own.at[ranker, "ranks"], own.at[ranker, "candidates"], strict=True))
            by_ranker[ranker] = [
                Listed(titles.get(item, item), item == target) for _, item in order[:NUM_LISTED]
            ]
        had = [titles.get(item, item) for item in list(history)[-NUM_HAD:]]
        found.append(Example(user, had, titles.get(target, target), by_ranker))
    return found

"""Sources fill the places of a list by their order and quotas, and a new one is a class and a line."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from allmrec.bundle import Bundle
from allmrec.ranking.rankers import served_order
from allmrec.scoring.assortment import AskedUsers, Assortment, SeenPairs
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.sources import SOURCES
from allmrec.scoring.sources.places import filled_lists
from allmrec.scoring.sources.popular import PopularItems
from tests.steps.additions import NewestItems
from tests.unit.tiny_bundle import tiny_bundle


class Fixed:
    """A source that finds the same items for every user, and counts how often it is asked."""

    def __init__(self, name: str, quota: int | None, *items: int) -> None:
        self.name = name
        self.quota = quota
        self.items = items
        self.num_asked = 0

    def candidates(self, users: AskedUsers, wanted: int) -> np.ndarray:
        self.num_asked += 1
        padded = (*self.items, *[0] * wanted)[:wanted]
        return np.tile(np.array(padded, dtype=np.int64), (len(users), 1))


def filled(*sources: Fixed, wanted: int = 5) -> list[tuple[int, str]]:
    """The list of the first of two users."""
    users = cast(AskedUsers, [None, None])
    first, second = filled_lists(sources, users, wanted)
    assert list(first.items()) == list(second.items())
    return list(first.items())


def of(name: str, *items: int) -> list[tuple[int, str]]:
    return [(item, name) for item in items]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_quota_reserves_places_behind_those_of_the_sources_without_one() -> None:
    best = Fixed("cf", None, 1, 2, 3, 4, 5)
    assert filled(best, Fixed("rare", 2, 6, 7, 8)) == of("cf", 1, 2, 3) + of("rare", 6, 7)
    assert filled(Fixed("rare", 2, 6, 7, 8), best) == of("cf", 1, 2, 3) + of("rare", 6, 7)
    both = filled(best, Fixed("rare", 2, 6, 7, 8), Fixed("new", 1, 9))
    assert both == of("cf", 1, 2) + of("rare", 6, 7) + of("new", 9)


def test_an_item_that_two_sources_find_belongs_to_the_first_and_the_quota_goes_to_the_next_item() -> None:
    best = Fixed("cf", None, 1, 2, 3, 4, 5)
    assert filled(best, Fixed("rare", 2, 3, 2, 7, 8)) == of("cf", 1, 2, 3) + of("rare", 7, 8)
    assert filled(best, Fixed("rare", 2, 4, 7, 8)) == of("cf", 1, 2, 3) + of("rare", 4, 7)


def test_places_that_a_quota_does_not_use_go_to_the_sources_without_one_in_their_order() -> None:
    best = Fixed("cf", None, 1, 2, 3, 4)
    popular = Fixed("popular", None, 2, 8, 9, 10)
    assert filled(best, Fixed("rare", 2, 3), popular) == of("cf", 1, 2, 3, 4) + of("popular", 8)
    assert filled(Fixed("cf", None), Fixed("rare", 2), popular) == of("popular", 2, 8, 9, 10)
    assert filled(Fixed("cf", None, 1), Fixed("rare", 1), popular) == of("cf", 1) + of("popular", 2, 8, 9, 10)


def test_quotas_above_the_wanted_number_are_cut_and_a_source_without_a_place_is_not_asked() -> None:
    best = Fixed("cf", None, 1, 2, 3)
    rare = Fixed("rare", 9, 6, 7, 8)
    new = Fixed("new", 2, 9)
    assert filled(best, rare, new, wanted=3) == of("rare", 6, 7, 8)
    assert (best.num_asked, rare.num_asked, new.num_asked) == (0, 1, 0)
    full = Fixed("cf", None, 1, 2, 3)
    popular = Fixed("popular", None, 8)
    assert filled(full, Fixed("rare", 0, 6), popular, wanted=3) == of("cf", 1, 2, 3)
    assert (full.num_asked, popular.num_asked) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_popular_items_are_those_of_a_full_sort_without_the_seen(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_interactions = random.integers(0, 4, 41)
    items = np.flatnonzero(random.random(41) < 0.6)
    items = items[items > 0]
    rows = np.sort(random.integers(0, 9, random.choice([0, 30, 900])))
    seen = SeenPairs(rows, random.integers(1, 41, len(rows)))
    assortment = cast(Assortment, SimpleNamespace(items=items, num_interactions=num_interactions))
    users = AskedUsers([()] * 9, cast(Any, None), seen, assortment)
    found = PopularItems(assortment).candidates(users, 7)
    ordered = sorted(items.tolist(), key=lambda item: (-num_interactions[item], item))
    for row in range(9):
        free = [item for item in ordered if item not in set(seen.items[rows == row].tolist())]
        assert found[row].tolist() == (free + [0] * 7)[:7]


def test_a_new_source_is_a_class_and_a_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = bundle.config.candidates.model_copy(update={"num_candidates": 10})
    histories: list[Sequence[str]] = [["i001", "i030"], [], ["i002"]]
    names = ["u0", "nobody", "u2"]
    before = Retriever(bundle, None, settings).retrieve(names, histories, histories)
    monkeypatch.setitem(SOURCES, "newest", NewestItems)
    after = Retriever(bundle, None, settings).retrieve(names, histories, histories)

    found_by = [list(sources) for sources in after.sources]
    assert found_by[0] == ["cf"] * 6 + ["text"] * 2 + ["newest"] * 2
    # Places reserved for rare items that a user without history does not get are filled at the end.
    assert found_by[1] == ["popular"] * 6 + ["newest"] * 2 + ["popular"] * 2
    for ids, old, history, sources in zip(
        after.ids.tolist(), before.ids.tolist(), histories, after.sources, strict=True
    ):
        assert len(set(ids)) == 10
        assert not set(ids) & set(history)
        newest = [f"i{number:03d}" for number in range(30, 0, -1)]
        start = sources.tolist().index("newest")
        free = [item for item in newest if item not in {*ids[:start], *history}]
        assert ids[start : start + 2] == free[:2]
        assert ids[:6] == old[:6]


def test_a_user_without_history_keeps_the_retrieved_order_whatever_sources_found_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "newest", NewestItems)
    lists = Retriever(bundle, None, bundle.config.candidates).retrieve(["nobody"], [[]], [[]])
    lists = Scorer(bundle, None, bundle.config).score(lists)
    order = served_order(bundle.blends, bundle.config.scoring).order(lists)
    assert order.sources.tolist() == ["popular"]
    assert order.reasons.tolist() == ["no_history"]
    assert (np.diff(order.scores[0]) < 0).all()

"""The slots of e-mails: a slow greedy chooser as the oracle, and the rules by themselves."""

from __future__ import annotations

import difflib
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from allmrec.ranking import slot_filling
from allmrec.ranking.slot_filling import TITLE_DUPLICATE_ABOVE, Filled, Pools, fill
from allmrec.ranking.slot_rules import EMPTY, ShopRules

WORDS = ("pump", "water", "filter", "tent", "stove", "lamp", "rope", "flask", "for two", "XL", "30 m", "red")


def pools(lists: list[list[dict[str, Any]]], floors: dict[str, int] | None = None) -> Pools:
    """The pools of users, each with the items of its list by rank; `floors` are those of boosts."""
    width = max(map(len, lists), default=0)
    empty: dict[str, Any] = {
        "relevance": 0.0,
        "vector": (0.0, 0.0, 0.0),
        "title": "",
        "shown": 0,
        "bought": False,
        "category": 0,
        "brand": 0,
        "pinned": 0,
        "buried": False,
        "summer": False,
        "new": False,
    }
    padded = [items + [{}] * (width - len(items)) for items in lists]

    def values(name: str) -> np.ndarray:
        table = [[{**empty, **item}[name] for item in items] for items in padded]
        return np.array(table).reshape(len(lists), width, *np.shape(empty[name]))

    titles = [{**empty, **item}["title"] for items in padded for item in items]
    numbers, forms = slot_filling.numbered_titles(titles)
    pairs = slot_filling.title_pairs(forms)[numbers]
    return Pools(
        sizes=np.array([len(items) for items in lists]),
        relevance=values("relevance").astype(float),
        vectors=values("vector").astype(np.float32),
        titles=numbers.reshape(len(lists), width),
        pairs=pairs.reshape(len(lists), width, slot_filling.TITLE_PAIRS),
        shown=values("shown").astype(int),
        bought=values("bought").astype(bool),
        groups={name: values(name).astype(int) for name in ("category", "brand")},
        rules=ShopRules(
            values("pinned").astype(int),
            values("buried").astype(bool),
            {name: values(name).astype(bool) for name in floors or {}},
            floors or {},
        ),
    )


def random_list(draw: np.random.Generator, size: int) -> list[dict[str, Any]]:
    """A list with likes, near titles, equal titles and a few groups."""
    items = []
    for relevance in np.sort(draw.normal(size=size))[::-1]:
        vector = draw.normal(size=3) + draw.choice([0, 3])
        items.append(
            {
                "relevance": float(relevance),
                "vector": tuple(vector / np.linalg.norm(vector)),
                "title": " ".join(draw.choice(WORDS[: draw.integers(3, len(WORDS))], draw.integers(1, 6))),
                "shown": int(draw.choice([0, 0, 1, 2])),
                "bought": bool(draw.choice([False, False, True])),
                "category": int(draw.integers(4)),
                "brand": int(draw.integers(6)),
                "buried": bool(draw.random() < 0.2),
                "summer": bool(draw.random() < 0.3),
                "new": bool(draw.random() < 0.2),
            }
        )
    return items


def with_random_pins(draw: np.random.Generator, items: list[dict[str, Any]], num_slots: int) -> None:
    """Pin some items of a list to different slots."""
    num_pins = min(int(draw.integers(0, 3)), len(items), num_slots)
    slots = draw.permutation(num_slots)[:num_pins] + 1
    for place, slot in zip(draw.permutation(len(items)), slots, strict=False):
        items[place]["pinned"] = int(slot)


def bin_of(pair: tuple[str, str]) -> int:
    return (31 * ord(pair[0]) + ord(pair[1])) % slot_filling.TITLE_PAIRS


def share_of_pairs(one: str, other: str) -> float:
    """Twice the number of common pairs of characters, as a share of both titles' pairs.

    Pairs of one bin are common too: `water` and `pump` have such pairs.
    """
    both = [Counter(map(bin_of, pairwise(text))) for text in map(slot_filling.normalised, (one, other))]
    total = sum(map(Counter.total, both))
    return 2 * (both[0] & both[1]).total() / total if total else 0.0


def is_near(one: dict[str, Any], other: dict[str, Any], above: float) -> bool:
    cosine = float(np.dot(one["vector"], other["vector"]))
    return cosine > above or share_of_pairs(one["title"], other["title"]) > TITLE_DUPLICATE_ABOVE


def slowly(
    items: list[dict[str, Any]],
    num_slots: int,
    diversity: float,
    above: float,
    caps: dict[str, int],
    floors: dict[str, int],
) -> tuple[list[int], bool, bool, int]:
    """One user's slots, item after item in plain Python: places, over a cap, near-duplicates, shown."""
    scores = [item["relevance"] for item in items]
    low = min(scores, default=0.0)
    span = max(scores, default=0.0) - low
    chosen: list[int] = []
    over_cap = False
    near_duplicates = False
    for _ in range(num_slots):
        best: tuple[Any, ...] | None = None
        for place, item in enumerate(items):
            others = [items[one] for one in chosen]
            if any(
                slot_filling.normalised(item["title"]) == slot_filling.normalised(one["title"])
                for one in others
            ):
                continue
            near = any(is_near(item, one, above) for one in others)
            over = any(sum(one[name] == item[name] for one in others) >= cap for name, cap in caps.items())
            likeness = max((float(np.dot(item["vector"], one["vector"])) for one in others), default=0.0)
            relevance = (item["relevance"] - low) / span if span else 1.0
            value = (1 - diversity) * relevance - diversity * max(likeness, 0.0)
            wanted = any(item[name] and sum(one[name] for one in others) < floors[name] for name in floors)
            is_pinned = item.get("pinned", 0) > 0
            put_back = (near, item["bought"], not wanted, over, item["shown"])
            key = (not is_pinned, item["buried"], *put_back, -value, place)
            best = key if best is None or key < best else best
        if best is None:
            break
        near_duplicates |= best[2]
        over_cap |= best[5]
        chosen.append(best[-1])
    num_shown = sum(items[place]["shown"] > 0 for place in chosen)
    return in_slots(items, chosen, num_slots), over_cap, near_duplicates, num_shown


def in_slots(items: list[dict[str, Any]], chosen: list[int], num_slots: int) -> list[int]:
    """The chosen places with pins in their slots, what is put back after the others by rank."""
    pinned = {items[place]["pinned"]: place for place in chosen if items[place].get("pinned")}
    others = [place for place in chosen if not items[place].get("pinned")]
    others.sort(key=lambda place: (*(items[place][name] for name in ("buried", "bought", "shown")), place))
    slots: list[int] = []
    for slot in range(1, num_slots + 1):
        if slot in pinned or others:
            slots.append(pinned[slot] if slot in pinned else others.pop(0))
    return slots


def places(filled: Filled) -> list[list[int]]:
    return [[place for place in own if place != EMPTY] for own in filled.places.tolist()]


@pytest.mark.parametrize("seed", range(12))
def test_slots_are_those_of_a_slow_greedy_chooser(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lists = [random_list(draw, int(draw.integers(0, 21))) for _ in range(25)]
    num_slots = int(draw.integers(1, 8))
    diversity = float(draw.choice([0, 0.3, 0.7, 1]))
    above = float(draw.choice([0.5, 0.9, 1]))
    caps = [{}, {"category": 2}, {"category": 2, "brand": 1}][draw.integers(3)]
    floors = [{}, {"summer": 2}, {"summer": 1, "new": 1}][draw.integers(3)]
    for items in lists:
        with_random_pins(draw, items, num_slots)
    filled = fill(pools(lists, floors), num_slots, diversity, above, caps)
    expected = [slowly(items, num_slots, diversity, above, caps, floors) for items in lists]
    assert places(filled) == [one[0] for one in expected]
    assert filled.over_cap.tolist() == [one[1] for one in expected]
    assert filled.near_duplicates.tolist() == [one[2] for one in expected]
    assert filled.shown.tolist() == [one[3] for one in expected]


def test_slots_of_a_user_depend_on_no_other_user() -> None:
    draw = np.random.default_rng(1)
    lists = [random_list(draw, int(draw.integers(1, 21))) for _ in range(20)]
    together = places(fill(pools(lists), 5, 0.5, 0.9, {"category": 2}))
    assert together == [places(fill(pools([items]), 5, 0.5, 0.9, {"category": 2}))[0] for items in lists]


def test_nobody_gets_nothing() -> None:
    assert fill(pools([]), 5, 0.5, 0.9, {"category": 2}).places.shape == (0, 5)
    assert places(fill(pools([[], []]), 5, 0.5, 0.9, {})) == [[], []]


def plain(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """A list by rank of items that are unlike each other unless they say otherwise."""
    unlike = ("alpha", "brook", "cedar", "delta", "ember", "fjord", "grove", "hazel", "isle", "jetty")
    return [
        {"relevance": -place, "title": unlike[place], "category": place, "brand": place, **item}
        for place, item in enumerate(items)
    ]


def test_without_diversity_and_rules_the_best_items_fill_the_slots() -> None:
    assert places(fill(pools([plain({}, {}, {}, {})]), 3, 0.0, 1.0, {})) == [[0, 1, 2]]


def test_an_item_unlike_the_first_is_preferred_the_more_the_higher_the_diversity() -> None:
    one, near = (1.0, 0.0, 0.0), (0.8, 0.6, 0.0)
    items = plain({"vector": one}, {"vector": near}, {"vector": (0.0, 0.0, 1.0)}, {"vector": (0.0, 0.0, 1.0)})
    assert places(fill(pools([items]), 2, 0.0, 0.9, {})) == [[0, 1]]
    assert places(fill(pools([items]), 2, 0.6, 0.9, {})) == [[0, 2]]


def test_a_cap_is_met_where_other_groups_are_left_and_the_slots_are_full_where_not() -> None:
    three = plain({"category": 7}, {"category": 7}, {"category": 7}, {}, {})
    filled = fill(pools([three, three[:3]]), 3, 0.0, 1.0, {"category": 2})
    assert places(filled) == [[0, 1, 3], [0, 1, 2]]
    assert filled.over_cap.tolist() == [False, True]


@pytest.mark.parametrize("seed", range(5))
def test_a_cap_by_category_is_met_whenever_any_choice_meets_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for size in range(1, 10):
        items = plain(*({"category": int(draw.integers(3))} for _ in range(size)))
        filled = fill(pools([items]), 4, 0.5, 0.9, {"category": 2})
        counts = Counter(item["category"] for item in items)
        can_be_met = sum(min(2, count) for count in counts.values()) >= min(4, size)
        assert bool(filled.over_cap[0]) != can_be_met
        assert len(places(filled)[0]) == min(4, size)


def test_one_title_is_there_once_even_where_slots_stay_empty() -> None:
    items = plain({"title": "Water Filter!"}, {"title": "water  FILTER"}, {"title": "Lamp"})
    assert places(fill(pools([items]), 3, 0.0, 1.0, {})) == [[0, 2]]


def test_the_better_of_near_duplicates_is_taken_and_the_other_fills_the_last_slot() -> None:
    pump = "Trailhand Water Filter Pump, red"
    items = plain({"title": pump}, {"title": pump.replace("red", "blue")}, {"category": 7}, {"category": 7})
    three = fill(pools([items]), 3, 0.0, 0.9, {"category": 1})
    assert places(three) == [[0, 2, 3]], "a broken cap comes before a near-duplicate"
    assert not three.near_duplicates[0]
    four = fill(pools([items]), 4, 0.0, 0.9, {"category": 1})
    assert places(four) == [[0, 1, 2, 3]]
    assert four.near_duplicates[0]


def test_an_item_that_was_shown_comes_before_a_broken_cap() -> None:
    items = plain({"category": 7}, {"category": 7}, {"shown": 3})
    filled = fill(pools([items]), 2, 0.0, 1.0, {"category": 1})
    assert places(filled) == [[0, 2]]
    assert not filled.over_cap[0]


def test_items_that_were_shown_lately_come_last_and_the_longest_ago_first() -> None:
    items = plain({"shown": 3}, {"shown": 1}, {"shown": 2}, {}, {})
    for num_slots, expected in ((2, [3, 4]), (3, [3, 4, 1]), (4, [3, 4, 1, 2]), (5, [3, 4, 1, 2, 0])):
        filled = fill(pools([items]), num_slots, 0.0, 1.0, {})
        assert places(filled) == [expected]
        assert filled.shown.tolist() == [num_slots - 2]


def test_a_pinned_item_has_its_slot_and_the_others_keep_their_order() -> None:
    items = plain({}, {}, {}, {}, {"pinned": 2})
    assert places(fill(pools([items]), 4, 0.0, 1.0, {})) == [[0, 4, 1, 2]]


def test_an_item_pinned_behind_the_end_of_a_short_email_is_its_last() -> None:
    items = plain({"pinned": 4}, {}, {})
    assert places(fill(pools([items]), 5, 0.0, 1.0, {})) == [[1, 2, 0]]


def test_pins_have_their_slots_whatever_was_shown_buried_or_over_a_cap() -> None:
    items = plain({"category": 7}, {}, {}, {"pinned": 1, "shown": 2, "category": 7, "buried": True})
    assert places(fill(pools([items]), 3, 0.0, 1.0, {"category": 1})) == [[3, 1, 2]]


def test_a_buried_item_fills_a_slot_only_where_nothing_else_is_left_and_is_the_last() -> None:
    items = plain({"buried": True}, {"shown": 2}, {}, {"category": 2})
    assert places(fill(pools([items]), 3, 0.0, 1.0, {"category": 1})) == [[2, 3, 1]]
    assert places(fill(pools([items]), 4, 0.0, 1.0, {"category": 1})) == [[2, 3, 1, 0]]


def test_an_item_like_a_bought_one_comes_after_shown_ones_and_before_buried_ones() -> None:
    items = plain({"buried": True}, {"bought": True}, {"shown": 2}, {})
    for num_slots, expected in ((2, [3, 2]), (3, [3, 2, 1]), (4, [3, 2, 1, 0])):
        assert places(fill(pools([items]), num_slots, 0.0, 1.0, {})) == [expected]


def test_a_boost_takes_items_like_bought_ones_only_where_nothing_else_is_left() -> None:
    items = plain({}, {}, {"summer": True, "bought": True}, {"summer": True, "shown": 1})
    assert places(fill(pools([items], {"summer": 2}), 2, 0.0, 1.0, {})) == [[0, 3]]
    assert places(fill(pools([items], {"summer": 2}), 4, 0.0, 1.0, {})) == [[0, 1, 3, 2]]
    pinned = plain({}, {}, {"pinned": 1, "bought": True})
    assert places(fill(pools([pinned]), 2, 0.0, 1.0, {})) == [[2, 0]]


def test_a_boost_has_its_share_of_slots_as_far_as_the_list_has_such_items() -> None:
    items = plain({}, {}, {}, {}, {"summer": True}, {"summer": True}, {"summer": True})
    assert places(fill(pools([items], {"summer": 2}), 4, 0.0, 1.0, {})) == [[0, 1, 4, 5]]
    assert places(fill(pools([items[:5]], {"summer": 2}), 4, 0.0, 1.0, {})) == [[0, 1, 2, 4]]


def test_a_boost_takes_no_slot_from_better_items_that_it_names_too() -> None:
    items = plain({"summer": True}, {"summer": True}, {}, {}, {"summer": True})
    assert places(fill(pools([items], {"summer": 2}), 4, 0.0, 1.0, {})) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("title", "form"),
    [
        ("  Water-Filter,  Pump ", "water filter pump"),
        ("ＷＡＴＥＲ ﬁlter", "water filter"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("★★★", "★★★"),
        ("snake_case", "snake case"),
        ("水 filter", "水 filter"),
    ],
)
def test_titles_are_compared_without_case_signs_and_blanks(title: str, form: str) -> None:
    assert slot_filling.normalised(title) == form


def test_titles_that_difflib_finds_nearly_the_same_are_near() -> None:
    draw = np.random.default_rng(0)
    num_near = 0
    for _ in range(500):
        words = list(draw.choice(WORDS, 6))
        other = [*words]
        other[draw.integers(6)] = str(draw.choice(WORDS))
        one, two = " ".join(words), " ".join(other)
        if difflib.SequenceMatcher(None, one, two).ratio() > 0.95:
            num_near += 1
            items = plain({"title": one}, {"title": two}, {})
            assert places(fill(pools([items]), 2, 0.0, 1.0, {})) != [[0, 1]]
    assert num_near > 30


def test_pairs_of_characters_are_counted_within_titles() -> None:
    counted = slot_filling.title_pairs(["abab", "", "a", "ab"])
    assert counted.dtype == np.int16
    assert counted.sum(axis=1).tolist() == [3, 0, 0, 1]
    assert (np.minimum(counted[0], counted[3]).sum()) == 1
    assert slot_filling.title_pairs([]).shape == (0, slot_filling.TITLE_PAIRS)

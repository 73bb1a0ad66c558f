"""Whose title a text is: ours, and the hit of the authors' evaluation by cases that their code decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allmrec.llm.matching import matching_titles

HITS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "fidelity" / "hit_rule.json").read_text("utf-8")
)
TITLES: list[str] = HITS["titles"]
POLAR = 'Sleeping Bag "Polar"'
OURS = {
    '"Red Tent"': "Red Tent",
    '"Red Tent for Two"': "Red Tent for Two",
    "Red Tent": "Red Tent",
    '"Blue Stove", "Red Tent"': "Blue Stove",
    'I recommend "Red Tent"': None,
    '"Red Tent XL"': "Red Tent",
    f'"{POLAR}"': POLAR,
    '"red  tent"': "Red Tent",
    '"Bag"': "Bag",
    '"Sleeping Bag': None,
    "": None,
}


def begins(text: str, *titles: str) -> str | None:
    found = matching_titles(text, titles, "begins")
    assert len(found) <= 1
    return titles[found[0]] if found else None


@pytest.mark.parametrize("case", HITS["cases"], ids=lambda case: case["text"])
def test_what_the_authors_count_as_a_hit_is_contained(case: dict[str, Any]) -> None:
    found = [TITLES[index] for index in matching_titles(case["text"], TITLES, "contains")]
    assert set(found) == set(case["authors_hit_for_true_title"])
    assert [len(title) for title in found] == sorted(map(len, found), reverse=True)


@pytest.mark.parametrize("case", HITS["cases"], ids=lambda case: case["text"])
def test_the_longest_title_with_which_the_text_begins_is_ours(case: dict[str, Any]) -> None:
    assert begins(case["text"], *TITLES) == OURS[case["text"]]
    assert begins(case["text"], *reversed(TITLES)) == OURS[case["text"]]


@pytest.mark.parametrize(
    "title",
    [
        POLAR,
        '"Polar" Sleeping Bag',
        '"Polar"',
        '""',
        'Tent 3"',
        'Screen 15.6" (39 cm)',
        "The 'Best' Stove",
        "C++ in 24 (hours)",
        "a.b*c?",
        "STRASSE straße",
        "İstanbul",
        "Tent\u3000for two",
        "第一 テント",
    ],
)
@pytest.mark.parametrize("written", ["{}", '"{}"', ' "{}".', '"{}", "Red Tent"', "{}\nRed Tent", '""{}"'])
def test_every_title_is_matched_by_its_own_text(title: str, written: str) -> None:
    others = ("Red Tent", "Sleeping Bag", "Tent", "Screen", "Polar", "The", "C", "a", "第")
    assert begins(written.format(title), *others, title) == title
    assert begins(written.format(title.upper()), *others, title) == title


@pytest.mark.parametrize(
    ("text", "title"), [("Bagpipe", "Bag"), ("Red Tents", "Red Tent"), ("tent_2", "Tent")]
)
def test_a_title_that_ends_within_a_word_is_another_one(text: str, title: str) -> None:
    assert begins(text, title) is None
    assert begins(f'"{title}"', title) == title


def test_what_the_authors_take_out_of_a_text_before_they_look_for_quotes() -> None:
    assert matching_titles('"Item Title" : "Blue Stove"', ["Blue Stove", "Item"], "contains") == [0]
    assert matching_titles('"Blue Stove"\n"Red Tent"', TITLES, "contains") == [TITLES.index("Blue Stove")]

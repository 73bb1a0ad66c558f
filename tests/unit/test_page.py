"""The page of an evaluation: texts stay texts, every ranker has a place, a second page costs a template."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import pandas as pd
import pytest

from allmrec.evaluation import words
from allmrec.evaluation.content import MISSING, Compared, Content, Figure, Group
from allmrec.evaluation.examples import Example, Listed
from allmrec.evaluation.list_figures import Bin, calibration
from allmrec.evaluation.markdown import markdown
from allmrec.evaluation.page import environment, log_places, page, sentence_case, ticks, top
from allmrec.evaluation.plots import ByPopularity, Cost, by_popularity
from allmrec.ranking.rankers import Entry, colour_of, entries, label_of

HOSTILE = """</td><script>alert("1")</script> & 'tent' {{ 7 * 7 }}"""
FIGURE = Figure(0.25, 0.2, 0.3)
BOTH = ("blend_without_llm", "served")

CONTENT = Content(
    title="Bundle 1",
    groups=[
        Group(
            protocol="own retrieved list",
            users="all users; the LLM writes freely",
            num_users=1234,
            remarks=["a remark"],
            metrics=("Hit@1", "MRR"),
            figures={"blend_without_llm": [FIGURE, MISSING], "served": [FIGURE, FIGURE]},
            headline={"blend_without_llm": FIGURE, "served": Figure(0.5, 0.4, 0.6)},
        )
    ],
    comparisons=[Compared("own retrieved list", "blend_without_llm", "NDCG@10 +0.2500: better", "better")],
    decision="the blend is served",
    costs=[Cost("blend_without_llm", 0.0, 0.25), Cost("served", 90.0, 0.5)],
    by_popularity=[ByPopularity("own retrieved list", [0.0, 99.0], {"blend_without_llm": [0.1, 0.2]})],
    calibration=[Bin("blend_without_llm", 0.01, 0.02, 50)],
    examples=[
        Example("u1", ["tent", "stove"], "lamp", {ranker: [Listed("lamp", True)] for ranker in BOTH}),
    ],
)


def body(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html[html.index("<body>") : html.index("</html>")])


def words_of(text: str) -> set[str]:
    return {word.strip(".,") for word in re.findall(r"[\w@.,%+'–-]+", text.lower())}


def test_the_page_has_every_word_and_figure_that_the_text_has() -> None:
    content = replace(CONTENT, by_popularity=[])  # of which the page has a plot alone
    html = " ".join(body(page(content)).itertext())
    missing = words_of(markdown(content)) - words_of(html)
    assert {word for word in missing if word.strip("-")} == {"n"}


def test_no_text_becomes_markup_or_code() -> None:
    hostile = replace(
        CONTENT,
        title=HOSTILE,
        examples=[Example(HOSTILE, [HOSTILE], HOSTILE, {"served": [Listed(HOSTILE, True)]})],
        decision=HOSTILE,
        costs=[Cost(HOSTILE, 1.0, 0.5)],
        by_popularity=[ByPopularity(HOSTILE, [1.0], {HOSTILE: [0.5]})],
    )
    html = page(hostile)
    tree = body(html)
    assert "<script" not in html
    assert not list(tree.iter("script"))
    assert " ".join(tree.itertext()).count(HOSTILE) >= 9
    [title] = re.findall("<title>(.*)</title>", html)
    assert unescape(title) == HOSTILE


def test_a_second_page_costs_a_template() -> None:
    template = environment().from_string(
        '{% extends "base.html" %}{% block body %}'
        "{% for one in content.comparisons %}<p>{{ one.ranker | label }}: {{ one.verdict }}</p>{% endfor %}"
        '{% include "examples.html" %}{% endblock %}'
    )
    tree = body(page(CONTENT, template))
    assert [one.text for one in tree.iter("p")] == [f"{label_of('blend_without_llm')}: better"]
    assert [one.text for one in tree.iter("h3")] == ["u1"]
    assert not list(tree.iter("table"))


def test_only_the_first_letter_of_a_heading_changes() -> None:
    assert sentence_case("all users; the LLM writes freely") == "All users; the LLM writes freely"
    headings = [one.text for one in body(page(CONTENT)).iter("h3")]
    assert headings[0] == "All users; the LLM writes freely"


def test_a_phone_and_a_dark_screen_are_asked_for_and_tables_scroll_in_a_box() -> None:
    html = page(CONTENT)
    assert '<meta name="viewport" content="width=device-width' in html
    assert "prefers-color-scheme: dark" in html
    tree = body(html)
    boxes = [one for one in tree.iter("div") if one.get("class") == "table"]
    assert len(boxes) == len(list(tree.iter("table"))) == 4
    assert all(box.find("table") is not None for box in boxes)
    assert not [one for one in tree.iter("svg") if re.fullmatch(r"\d+", one.get("width", ""))]


def test_bars_are_as_long_as_their_figures_and_a_ranker_has_one_colour() -> None:
    [bars] = [one for one in body(page(CONTENT)).iter("svg") if len(list(one.iter("rect"))) == 2]
    lengths = [float(one.get("width", "").rstrip("%")) for one in bars.iter("rect")]
    assert lengths == [pytest.approx(100 * 0.25 / 0.6, abs=0.01), pytest.approx(100 * 0.5 / 0.6, abs=0.01)]
    assert [one.get("fill") for one in bars.iter("rect")] == [colour_of(ranker) for ranker in BOTH]
    colours = [entry.colour for entry in entries().values()]
    assert len({*colours, Entry.colour}) == len(colours) + 1
    assert colour_of("of another version") == Entry.colour


def test_what_is_not_there_has_no_plot_and_says_why() -> None:
    nobody = replace(CONTENT.groups[0], num_users=0, remarks=[words.NOBODY])
    empty = replace(
        CONTENT, groups=[nobody], comparisons=[], costs=[], by_popularity=[], calibration=[], examples=[]
    )
    tree = body(page(empty))
    assert not list(tree.iter("svg"))
    assert not list(tree.iter("table"))
    notes = " ".join(tree.itertext())
    for expected in (words.NOBODY, "no costs", "no probabilities"):
        assert expected in notes


def test_a_ranker_without_a_cost_is_in_the_table_alone() -> None:
    html = page(
        replace(CONTENT, costs=[Cost("blend_without_llm", 2.0, 0.25), Cost("llm", float("nan"), 0.5)])
    )
    assert len(list(body(html).iter("circle"))) == 1
    assert "nan" not in html
    assert label_of("llm") in html


def test_the_blend_with_the_llm_is_in_the_lines_and_the_calibration() -> None:
    rows = pd.DataFrame(
        [
            ("retrieved", ranker, user, "i1", 1, ["i1", "i2"], [0.5, 0.25])
            for ranker in ("blend_without_llm", "blend_with_llm")
            for user in ("u1", "u2")
        ],
        columns=["protocol", "model", "user_id", "target", "target_rank", "candidates", "probabilities"],
    )
    [lines] = by_popularity(rows, {"i1": 7})
    assert list(lines.lines) == ["blend_without_llm", "blend_with_llm"]
    bins = calibration(rows)
    assert {one.ranker for one in bins} == {"blend_without_llm", "blend_with_llm"}
    assert [one.ranker for one in calibration(rows[rows["model"] == "blend_without_llm"])] == [
        "blend_without_llm"
    ] * 4
    tree = body(page(replace(CONTENT, by_popularity=[lines], calibration=bins)))
    assert colour_of("blend_with_llm") in [one.get("stroke") for one in tree.iter("polyline")]


def test_places_along_an_axis_are_logarithms_and_ticks_do_not_cover_each_other() -> None:
    assert log_places([0, 9, 99], added=1) == pytest.approx([0, 50, 100])
    assert log_places([5, 5], added=1) == [50, 50]
    assert ticks([10_000, 20_000, 5], [90, 95, 0], "{:,.0f}") == [("5", 0), ("10,000", 90)]
    assert top([0.0, float("nan"), 0.5]) == 0.5
    assert top([0.0]) == top([]) == 1.0

"""Candidate lists keep every user's row, know what is missing, and go through a frame and back unchanged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allmrec.ranking.candidate_lists import CandidateLists, filled

SIZES = st.lists(st.integers(0, 6), min_size=0, max_size=8)


def lists_of(sizes: list[int], seed: int = 0) -> CandidateLists:
    """Users u0, u1 … with as many candidates, the CF score of every third one missing."""
    random = np.random.default_rng(seed)
    candidates = [[f"i{user}-{number}" for number in range(size)] for user, size in enumerate(sizes)]
    lists = CandidateLists.of(
        [f"u{user}" for user in range(len(sizes))],
        [["h"] * size for size in sizes],
        candidates,
        [["cf"] * size for size in sizes],
    )
    cf, text = (random.normal(size=sum(sizes)) for _ in range(2))
    cf[::3] = np.nan
    return lists.with_parts({"cf": lists.spread(cf), "text": lists.spread(text)})


def same(one: CandidateLists, other: CandidateLists) -> None:
    """Raise AssertionError unless both are the same lists, width included."""
    for name in ("users", "ids", "counts", "sources", "use_llm", "llm_failures"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [list(history) for history in one.histories] == [list(history) for history in other.histories]
    assert one.parts.keys() == other.parts.keys()
    for name, values in one.parts.items():
        np.testing.assert_array_equal(values, other.parts[name])


@given(SIZES, st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_a_frame_and_back_changes_nothing(sizes: list[int], seed: int) -> None:
    lists = lists_of(sizes, seed)
    frame = lists.to_frame()
    assert list(frame.columns) == ["user_id", "item_ids", "cf_scores", "text_scores", "sources"]
    assert frame["item_ids"].map(len).tolist() == sizes
    same(
        CandidateLists.from_frame(frame.assign(history=[["h"] * size for size in sizes], use_llm=False)),
        lists,
    )


@given(SIZES)
@settings(deadline=None, max_examples=50)
def test_users_taken_one_by_one_and_joined_again_are_the_same_lists(sizes: list[int]) -> None:
    lists = lists_of(sizes)
    pieces = [lists.take(np.array([row])) for row in range(len(sizes))]
    assert [piece.ids.shape for piece in pieces] == [(1, size) for size in sizes]
    if sizes:
        same(CandidateLists.concatenated(pieces), lists)


def test_what_lies_beyond_a_users_candidates_is_missing_everywhere() -> None:
    lists = lists_of([3, 0, 1])
    assert lists.present.tolist() == [[True, True, True], [False] * 3, [True, False, False]]
    assert lists.ids[2].tolist() == ["i2-0", None, None]
    everywhere = lists.with_parts({"text": np.ones((3, 3)), "cf": np.full((3, 3), np.inf)})
    assert np.isnan(everywhere.part("text")[~lists.present]).all()
    assert np.isnan(everywhere.part("cf")).all()


def test_a_missing_score_is_null_in_a_frame_and_one_that_is_not_finite_is_missing() -> None:
    frame = pd.DataFrame(
        {"user_id": ["u"], "history": [["h"]], "item_ids": [["a", "b", "c"]], "use_llm": [True]}
    )
    frame = frame.assign(
        sources=[["cf"] * 3], cf_scores=[[1.0, None, np.inf]], text_scores=[[0.5, np.nan, 0.25]]
    )
    lists = CandidateLists.from_frame(frame)
    assert lists.to_frame()["cf_scores"][0] == [1.0, None, None]
    assert lists.to_frame()["text_scores"][0] == [0.5, None, 0.25]
    assert lists.use_llm.tolist() == [True]


def test_the_column_of_an_item_is_where_it_stands_and_minus_one_elsewhere() -> None:
    lists = lists_of([3, 0, 2])
    assert lists.columns_of(["i0-2", "i0-0", "i0-0"]).tolist() == [2, -1, -1]
    assert CandidateLists.of([], [], []).columns_of([]).tolist() == []


def test_lists_and_parts_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="expected as many of each"):
        CandidateLists.of(["u"], [], [["a"]])
    with pytest.raises(ValueError, match=r"shape \(2, 2\), expected \(1, 1\)"):
        CandidateLists.of(["u"], [[]], [["a"]]).with_parts({"cf": np.zeros((2, 2))})


def test_missing_values_are_filled_below_the_lowest_of_the_row() -> None:
    values, present = (
        np.array([[-2.0, np.nan, -3.0], [np.nan, np.nan, np.nan]]),
        np.array([[True] * 3, [True, True, False]]),
    )
    assert filled(values, present).tolist() == [[-2.0, -4.0, -3.0], [0.0, 0.0, -np.inf]]


def test_a_part_that_was_never_filled_raises_and_an_unknown_value_does_not() -> None:
    lists = lists_of([2]).with_parts({"cf": np.array([[1.0, np.nan]])})
    assert np.isnan(lists.part("cf")[0, 1])
    with pytest.raises(KeyError, match="popularity: never filled, expected one of cf"):
        lists.part("popularity")

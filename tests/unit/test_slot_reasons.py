"""Reasons of slots: leaving out one item of the history after the other is the oracle."""

from __future__ import annotations

import numpy as np

from allmrec.ranking.slot_reasons import (
    BOUGHT_AFTER,
    BOUGHT_BEFORE,
    NEW,
    NOTHING,
    POPULAR,
    SIMILAR,
    Likeness,
    likeness,
    reasons,
)


def unit_rows(draw: np.random.Generator, *shape: int) -> np.ndarray:
    rows = draw.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random_likeness(draw: np.random.Generator, length: int) -> tuple[Likeness, list[list[np.ndarray]]]:
    """Likenesses of 7 users with 5 items each, and the vectors behind them: of items, of the history."""
    sides = [[unit_rows(draw, 7, number, width) for number in (5, length)] for width in (4, 3)]
    text, cf = (likeness(items, history) for items, history in sides)
    return Likeness(text, cf, np.zeros((7, 5, length), dtype=bool)), sides


NO = np.zeros((7, 5), dtype=bool)


def test_the_because_item_is_the_one_whose_leaving_out_lowers_the_relevance_most() -> None:
    draw = np.random.default_rng(5)
    for length in (1, 2, 9):
        found, sides = random_likeness(draw, length)
        of_items = reasons(found, NO, NO)
        for user in range(7):
            for item in range(5):
                relevance = [
                    sum(
                        float(items[user, item] @ history[user][kept].sum(axis=0)) for items, history in sides
                    )
                    for kept in [np.arange(length), *(np.arange(length) != left for left in range(length))]
                ]
                costs = [relevance[0] - without for without in relevance[1:]]
                expected = int(np.argmax(costs)) if max(costs) > 0 else NOTHING
                assert of_items.places[user, item] == expected


def test_the_reason_is_the_larger_of_the_two_likenesses() -> None:
    text = np.array([[[0.1, 0.6], [0.2, 0.3]]])
    cf = np.array([[[0.0, 0.5], [0.9, 0.0]]])
    found = reasons(Likeness(text, cf, np.zeros((1, 2, 2), dtype=bool)), NO[:1, :2], NO[:1, :2])
    assert found.texts.tolist() == [[SIMILAR, BOUGHT_AFTER]]
    assert found.places.tolist() == [[1, 0]]


def test_an_item_of_the_history_was_bought_before_whatever_is_more_like_it() -> None:
    same = np.array([[[True, False, False]]])
    likenesses = np.array([[[0.0, 1.0, 1.0]]])
    found = reasons(Likeness(likenesses, likenesses, same), NO[:1, :1], NO[:1, :1])
    assert (found.texts.tolist(), found.places.tolist()) == ([[BOUGHT_BEFORE]], [[0]])


def test_of_two_equal_items_of_the_history_the_newer_one_is_named() -> None:
    likenesses = np.array([[[0.5, 0.5, 0.2]]])
    found = reasons(Likeness(likenesses, likenesses, np.zeros((1, 1, 3), bool)), NO[:1, :1], NO[:1, :1])
    assert found.places.tolist() == [[1]]


def test_without_an_item_that_speaks_for_it_an_item_is_popular_or_new() -> None:
    is_new = np.array([[False, True]])
    for length, value in ((0, 0.0), (3, 0.0), (3, -0.5)):
        likenesses = np.full((1, 2, length), value)
        found = reasons(Likeness(likenesses, likenesses, likenesses > 1), NO[:1, :2], is_new)
        assert found.texts.tolist() == [[POPULAR, NEW]]
        assert found.places.tolist() == [[NOTHING, NOTHING]]
    likenesses = np.full((1, 2, 3), 0.9)
    of_popular_list = reasons(Likeness(likenesses, likenesses, likenesses > 1), ~NO[:1, :2], is_new)
    assert of_popular_list.texts.tolist() == [[POPULAR, NEW]]

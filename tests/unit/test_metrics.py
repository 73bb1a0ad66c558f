from __future__ import annotations

import math

import numpy as np
import pytest

from allmrec import metrics


def test_metrics_follow_their_formulas() -> None:
    ranks = np.array([1, 2, 10, 11])
    assert metrics.hit(ranks, 1).tolist() == [1, 0, 0, 0]
    assert metrics.hit(ranks, 10).tolist() == [1, 1, 1, 0]
    assert metrics.ndcg(ranks, 10) == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0])
    assert metrics.mrr(ranks) == pytest.approx([1, 1 / 2, 1 / 10, 1 / 11])


def test_an_item_that_was_not_ranked_counts_nothing() -> None:
    never = np.array([np.inf])
    assert metrics.hit(never, 10)[0] == metrics.ndcg(never, 10)[0] == metrics.mrr(never)[0] == 0


def test_ranks_count_the_better_candidates() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]])
    assert metrics.ranks_of_target(scores, np.array([2, 0])).tolist() == [2, 1]


def test_a_tie_never_helps() -> None:
    constant = np.zeros((1, 5))
    assert metrics.ranks_of_target(constant, np.array([0])).tolist() == [5]


def test_a_target_that_is_out_is_last() -> None:
    scores = np.array([[-np.inf, 1.0, -np.inf]])
    assert metrics.ranks_of_target(scores, np.array([0])).tolist() == [3]


def test_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        metrics.ranks_of_target(np.array([[np.nan, 1.0]]), np.array([0]))


def test_bootstrap_intervals_are_seeded_and_hold_the_means() -> None:
    values = np.array([[0.0, 1.0]] * 70 + [[1.0, 3.0]] * 30)
    low, high = metrics.bootstrap_intervals(values, 500, seed=3)
    again = metrics.bootstrap_intervals(values, 500, seed=3)
    assert (low.tolist(), high.tolist()) == (again[0].tolist(), again[1].tolist())
    assert 0.15 < low[0] < 0.3 < high[0] < 0.45
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 100), rel=0.15)
    # The second column is 1 + 2 · the first: the same users were drawn.
    assert [low[1], high[1]] == pytest.approx([1 + 2 * low[0], 1 + 2 * high[0]])


def test_bootstrap_means_are_those_of_the_drawn_rows() -> None:
    values = np.random.default_rng(0).random((50, 1))
    random = np.random.Generator(np.random.PCG64(5))
    means = [values[random.integers(0, 50, 50)].mean() for _ in range(200)]
    low, high = metrics.bootstrap_intervals(values, 200, seed=5)
    assert [low[0], high[0]] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())


def test_no_users_give_nan_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert all(math.isnan(value) for value in metrics.figures(np.array([])).values())
    assert all(np.isnan(bound).all() for bound in metrics.bootstrap_intervals(np.zeros((0, 2))))
    assert not recwarn.list

"""Metrics on random input against ranx and scikit-learn, and by hand where nobody else has them."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from allmrec import metrics
from allmrec.evaluation import list_metrics

NOBODY = np.zeros((0, 10), dtype=np.int64)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="ranx needs packages that Python 3.10 does not have")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ranks_give_what_ranx_measures(random: np.random.Generator) -> None:
    # Compiling ranx takes longer than all of this.
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    from ranx import Qrels, Run, evaluate

    names = {
        "Hit@1": "hit_rate@1",
        "HR@5": "hit_rate@5",
        "HR@10": "hit_rate@10",
        "Recall@20": "recall@20",
        "HR@100": "hit_rate@100",
        "NDCG@5": "ndcg@5",
        "NDCG@10": "ndcg@10",
        "NDCG@20": "ndcg@20",
        "NDCG@100": "ndcg@100",
        "MRR": "mrr",
    }
    assert set(names) == set(metrics.PER_USER)
    scores = random.random((60, 150))
    targets = random.integers(0, 150, 60)
    ranks = metrics.ranks_of_target(scores, targets)
    is_retrieved = random.random(60) < 0.8
    ranks[~is_retrieved] = np.inf
    ids = [f"i{item}" for item in range(150)]
    lists = {
        f"u{user:02d}": {
            item: float(score)
            for item, score in zip(ids, row, strict=True)
            if is_retrieved[user] or item != ids[targets[user]]
        }
        for user, row in enumerate(scores)
    }
    qrels = Qrels({f"u{user:02d}": {ids[target]: 1} for user, target in enumerate(targets)})
    expected = evaluate(qrels, Run(lists), list(names.values()), return_mean=False)
    for name, theirs in names.items():
        assert metrics.PER_USER[name](ranks) == pytest.approx(expected[theirs]), name


def test_areas_under_curves_are_those_of_scikit_learn(random: np.random.Generator) -> None:
    scores = random.integers(0, 12, (50, 20)).astype(float)  # many ties
    labels = np.zeros((50, 20), dtype=bool)
    targets = random.integers(0, 20, 50)
    labels[np.arange(50), targets] = True
    assert list_metrics.auc(scores.ravel(), labels.ravel()) == pytest.approx(
        roc_auc_score(labels.ravel(), scores.ravel())
    )
    untied = random.random((50, 20))
    ranks = metrics.ranks_of_target(untied, targets)
    own = [roc_auc_score(mine, row) for mine, row in zip(labels, untied, strict=True)]
    assert list_metrics.auc_per_user(ranks, np.full(50, 20)) == pytest.approx(own)


def test_areas_of_empty_cases(recwarn: pytest.WarningsRecorder) -> None:
    assert np.isnan(list_metrics.auc(np.array([0.5]), np.array([True])))
    assert np.isnan(list_metrics.auc(np.array([]), np.array([], dtype=bool)))
    found = list_metrics.auc_per_user(np.array([np.inf, 1.0, 3.0]), np.array([20, 1, 3]))
    assert found[0] == 0
    assert np.isnan(found[1])
    assert found[2] == 0
    assert not recwarn.list


def test_the_calibration_error_is_the_weighted_gap_of_scikit_learns_curve(
    random: np.random.Generator,
) -> None:
    probabilities = random.random(1000) ** 3
    labels = random.random(1000) < probabilities**1.3
    shares, means = calibration_curve(labels, probabilities, n_bins=10, strategy="quantile")
    assert list_metrics.calibration_error(probabilities, labels) == pytest.approx(
        np.abs(shares - means).mean(), rel=0.02
    )
    honest = random.random(200_000) < 0.03
    assert list_metrics.calibration_error(np.full(200_000, 0.03), honest) < 0.005
    assert list_metrics.calibration_error(np.full(200_000, 0.13), honest) == pytest.approx(0.1, abs=0.002)
    assert np.isnan(list_metrics.calibration_error(np.array([]), np.array([], dtype=bool)))


def test_novelty_and_popularity_are_means_over_the_items_of_a_list() -> None:
    counts = np.array([3, 0, 1, 0])  # with one more each: 4, 1, 2, 1 of 8
    top = np.array([[0, 1, -1], [2, -1, -1], [-1, -1, -1]])
    assert list_metrics.novelty(top, counts)[:2].tolist() == [(1 + 3) / 2, 2]
    assert list_metrics.popularity(top, counts)[:2].tolist() == [1.5, 1]
    assert np.isnan(list_metrics.novelty(top, counts)[2])
    assert np.isnan(list_metrics.popularity(top, counts)[2])
    assert len(list_metrics.novelty(NOBODY, counts)) == 0


def test_coverage_is_the_share_of_the_catalogue_that_anybody_gets() -> None:
    assert list_metrics.coverage(np.array([[0, 1], [1, -1]]), 8) == 0.25
    assert list_metrics.coverage(np.array([[-1, -1]]), 8) == 0
    assert np.isnan(list_metrics.coverage(NOBODY, 8))
    assert np.isnan(list_metrics.coverage(np.array([[-1]]), 0))


def test_diversity_is_one_minus_the_mean_cosine_of_all_pairs(random: np.random.Generator) -> None:
    vectors = random.normal(size=(6, 4))
    vectors[5] = 0.0
    top = np.array([[0, 3, 2], [4, 5, -1], [1, -1, -1]])
    units = vectors[:5] / np.linalg.norm(vectors[:5], axis=1, keepdims=True)
    cosines = [units[a] @ units[b] for a, b in ((0, 3), (0, 2), (3, 2))]
    found = list_metrics.diversity(top, vectors)
    assert found[0] == pytest.approx(1 - np.mean(cosines))
    assert found[1] == 1
    assert np.isnan(found[2])
    assert list_metrics.diversity(np.array([[0, 0]]), vectors)[0] == pytest.approx(0)

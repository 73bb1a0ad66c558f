"""The protocol is the same for every ranker, ties favour nobody, every figure can be recomputed by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allmrec.config import Config
from allmrec.evaluation.leave_one_out import (
    lists_with_target,
    ranks_of_candidates,
    sample_negatives,
    target_ranks,
)
from allmrec.evaluation.report import results, table
from allmrec.evaluation.scenarios import scenario_rows, warm_cold
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import rankers
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from tests.unit.tiny_bundle import tiny_bundle, tiny_llm


def test_negatives_are_distinct_unseen_and_a_function_of_seed_and_user() -> None:
    seen = {3, 4, 99}
    drawn = sample_negatives("u1", seen, 100, 19, 7)
    assert len(drawn) == len(set(drawn)) == 19
    assert not seen & set(drawn)
    assert all(1 <= idx <= 100 for idx in drawn)
    assert drawn == sample_negatives("u1", seen, 100, 19, 7)
    assert drawn != sample_negatives("u2", seen, 100, 19, 7)
    assert drawn != sample_negatives("u1", seen, 100, 19, 8)


def test_negatives_are_uniform_over_what_is_left() -> None:
    counts = np.bincount(
        [idx for user in range(4000) for idx in sample_negatives(str(user), {1}, 11, 5, 0)], minlength=12
    )
    assert counts[0] == counts[1] == 0
    assert counts[2:] == pytest.approx(np.full(10, 2000), abs=150)


def test_a_small_catalogue_gives_what_it_has() -> None:
    assert sorted(sample_negatives("u", {2}, 4, 19, 0)) == [1, 3, 4]
    assert sample_negatives("u", {1, 2, 3, 4, 50}, 4, 19, 0) == []


def lists_of(num_users: int, num_candidates: int) -> CandidateLists:
    """Users with as many candidates each."""
    ids = [f"i{number}" for number in range(num_candidates)]
    return CandidateLists.of([f"u{user}" for user in range(num_users)], [[]] * num_users, [ids] * num_users)


def test_ties_favour_the_target_no_more_than_any_other_wherever_it_stands() -> None:
    lists = lists_of(2000, 20)
    ranks = ranks_of_candidates(np.zeros((2000, 20)), lists, 0)
    assert np.mean([row[0] == 1 for row in ranks]) == pytest.approx(0.05, abs=0.02)
    assert all(sorted(row) == list(range(1, 21)) for row in ranks)
    assert ranks == ranks_of_candidates(np.ones((2000, 20)), lists, 0)


def test_ranks_follow_the_scores_and_refuse_what_is_no_number() -> None:
    assert ranks_of_candidates(np.array([[0.1, 0.9, -3.0]]), lists_of(1, 3), 0) == [[2, 1, 3]]
    with pytest.raises(ValueError, match="not finite"):
        ranks_of_candidates(np.array([[0.1, np.nan]]), lists_of(1, 2), 0)


def test_warm_and_cold_are_the_ends_and_equal_counts_stay_together() -> None:
    assert warm_cold(np.arange(20), 0.35).tolist() == ["cold"] * 7 + ["middle"] * 6 + ["warm"] * 7
    mostly_zero = warm_cold(np.array([0] * 6 + [1, 2, 3, 4]), 0.35).tolist()
    assert mostly_zero == ["cold"] * 6 + ["middle"] + ["warm"] * 3
    assert set(warm_cold(np.zeros(10), 0.35)) == {"middle"}
    assert warm_cold(np.array([5]), 0.35).tolist() == ["middle"]
    assert len(warm_cold(np.array([]), 0.35)) == 0
    shuffled = np.random.default_rng(0).permutation(np.array([0, 0, 1, 1, 1, 2, 5, 5, 9, 30]))
    by_count = {count: label for count, label in zip(shuffled, warm_cold(shuffled, 0.35), strict=True)}
    assert by_count[0] == "cold"
    assert by_count[30] == "warm"
    assert by_count[1] == "middle"


def test_a_scenario_is_a_filter_by_the_targets_label() -> None:
    labels = np.array(["warm", "cold", "warm"])
    assert scenario_rows(labels, "all").tolist() == [True] * 3
    assert scenario_rows(labels, "cold").tolist() == [False, True, False]
    assert not scenario_rows(labels, "middle").any()


def predictions() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two models: `cf` ranks the targets 1, 2, 11, `text` always last; they are warm, warm and cold."""
    items = pd.DataFrame({"item_id": [f"i{n:02d}" for n in range(40)], "num_interactions": np.arange(40)})
    rows = []
    for user, target, rank in (("u1", "i39", 1), ("u2", "i38", 2), ("u3", "i00", 11)):
        candidates = [target, *(f"i{n:02d}" for n in range(10, 29))]
        others = [place for place in range(1, 21) if place != rank]
        rows.append((user, target, candidates, "cf", [rank, *others]))
        rows.append((user, target, candidates, "text", [20, *range(1, 20)]))
    return pd.DataFrame(rows, columns=["user_id", "target", "candidates", "model", "ranks"]), items


def test_results_are_the_means_with_intervals_and_numbers_of_users() -> None:
    frame, items = predictions()
    found = results(frame, items, Config().evaluation, seed=0).set_index(["scenario", "model", "metric"])
    assert found.loc[("all", "cf", "Hit@1"), "value"] == pytest.approx(1 / 3)
    assert found.loc[("all", "cf", "NDCG@10"), "value"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert found.loc[("all", "cf", "HR@10"), "value"] == pytest.approx(2 / 3)
    assert found.loc[("all", "cf", "MRR"), "value"] == pytest.approx((1 + 1 / 2 + 1 / 11) / 3)
    assert found.loc[("all", "text", "Hit@1"), ["value", "low", "high"]].tolist() == [0, 0, 0]
    assert found.loc[("warm", "cf", "HR@5"), "value"] == 1
    assert found.loc[("cold", "cf", "HR@10"), "value"] == 0
    assert [found.loc[(scenario, "cf", "MRR"), "n"] for scenario in ("all", "warm", "middle", "cold")] == [
        3,
        2,
        0,
        1,
    ]
    assert np.isnan(found.loc[("middle", "cf", "MRR"), "value"])
    row = found.loc[("all", "cf", "MRR")]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["low"] < row["high"]
    shuffled = results(frame.sample(frac=1, random_state=1), items, Config().evaluation, seed=0)
    pd.testing.assert_frame_equal(shuffled, found.reset_index())


def test_the_report_names_every_model_scenario_and_number_of_users() -> None:
    frame, items = predictions()
    text = table(results(frame, items, Config().evaluation, seed=0))
    assert "all users (n = 3" in text
    assert "users whose next item is cold (n = 1" in text
    assert "CF model" in text
    assert "text similarity" in text
    assert "0.333 [" in text
    assert "–" in text


def test_a_target_that_is_not_among_the_candidates_counts_nothing() -> None:
    assert target_ranks([["a", "b"], ["a", "b"]], [[2, 1], [1, 2]], ["a", "x"]).tolist() == [2.0, np.inf]


def test_every_ranker_orders_the_same_candidates_of_a_real_bundle(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    retriever = Retriever(bundle, None, bundle.config.candidates)
    lists = retriever.score(["u1", "u2"], [["i001", "i002"], ["i029"]], [["i003", "i030", "i010"]] * 2)
    lists = Scorer(bundle, tiny_llm(tmp_path), bundle.config).score(lists.asking_llm(True))
    table = rankers(bundle.blends, bundle.config.scoring)
    for ranker in table.values():
        ranks = ranks_of_candidates(ranker.scores(lists), lists, 0)
        assert [sorted(row) for row in ranks] == [[1, 2, 3]] * 2
    assert ranks_of_candidates(table["popularity"].scores(lists), lists, 0)[0][1] == 3


def test_the_target_stands_first_and_the_others_were_never_seen(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    retriever = Retriever(bundle, None, bundle.config.candidates)
    lists = lists_with_target(["u1"], [["i001"]], ["i004"], [["i001", "i002", "gone"]], retriever, 19, 7)
    ids = lists.listed(lists.ids)[0]
    assert ids[0] == "i004"
    assert len(set(ids)) == 20
    assert not {"i001", "i002"} & set(ids)
    assert np.isfinite(lists.part("text")).all()
    assert (lists.part("popularity") >= 0).all()

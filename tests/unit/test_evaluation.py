"""The protocol is the same for every ranker, ties favour nobody, every figure can be recomputed by hand."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from allmrec import metrics
from allmrec.config import Config, load
from allmrec.evaluation.comparison import in_words, paired
from allmrec.evaluation.condition import condition_and_group, condition_of, scenario_of
from allmrec.evaluation.condition import in_words as condition_in_words
from allmrec.evaluation.content import Content, content_of
from allmrec.evaluation.list_figures import cost_figures, list_figures
from allmrec.evaluation.markdown import markdown
from allmrec.evaluation.negatives import lists_with_target, sample_negatives
from allmrec.evaluation.page import page
from allmrec.evaluation.protocols import NUM_STORED, predictions
from allmrec.evaluation.ranks import ranks_in_catalogue, ranks_of_candidates, target_ranks
from allmrec.evaluation.report import by_protocol, comparisons, results
from allmrec.evaluation.scenarios import scenario_rows, warm_cold
from allmrec.evaluation.spoiled_text import NO_TITLE, spoiled
from allmrec.evaluation.words import Lists
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import RANKERS, Entry, PartRanker, label_of, rankers
from allmrec.ranking.ties import item_draws
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


def test_negatives_by_popularity_are_drawn_in_proportion_and_those_nobody_had_come_last() -> None:
    weights = np.array([5.0, 0.0, 1.0, 4.0, 5.0])
    first = [sample_negatives(str(user), {1}, 5, 1, 0, weights)[0] for user in range(6000)]
    assert np.bincount(first, minlength=6)[1:] / 6000 == pytest.approx([0, 0, 0.1, 0.4, 0.5], abs=0.02)
    drawn = sample_negatives("u", {1}, 5, 3, 0, weights)
    assert sorted(drawn) == [3, 4, 5]
    assert sample_negatives("u", {1}, 5, 19, 0, weights) == [*drawn, 2]


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


def test_a_scenario_is_a_filter_by_the_targets_label_or_by_what_was_retrieved() -> None:
    labels, ranks = np.array(["warm", "cold", "warm"]), np.array([1.0, np.inf, 3.0])
    assert scenario_rows(labels, ranks, "all").tolist() == [True] * 3
    assert scenario_rows(labels, ranks, "cold").tolist() == [False, True, False]
    assert not scenario_rows(labels, ranks, "middle").any()
    assert scenario_rows(labels, ranks, "found").tolist() == [True, False, True]


def ranked() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Retrieved lists: `cf` ranks the targets 1, 2, 11, not at all, `served` 2, 1, 11, not at all.

    The targets are warm, warm, cold and cold items. In the catalogue `cf` ranks them 5, 6, 30 and 200.
    """
    items = pd.DataFrame({"item_id": [f"i{n:02d}" for n in range(40)], "num_interactions": np.arange(40)})
    targets = {"u1": "i39", "u2": "i38", "u3": "i00", "u4": "i01"}
    ranks: dict[tuple[str, str], list[int | None]] = {
        ("retrieved", "cf"): [1, 2, 11, None],
        ("retrieved", "served"): [2, 1, 11, None],
        ("catalogue", "cf"): [5, 6, 30, 200],
    }
    rows = [
        (protocol, model, user, target, rank)
        for (protocol, model), of_model in ranks.items()
        for (user, target), rank in zip(targets.items(), of_model, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["protocol", "model", "user_id", "target", "target_rank"])
    return frame, items


KEYS = ["protocol", "scenario", "model", "metric"]


def test_results_are_the_means_with_intervals_and_numbers_of_users() -> None:
    frame, items = ranked()
    found = results(frame, items, Config().evaluation, seed=0).set_index(KEYS)
    end_to_end = found.loc["retrieved"].loc["all"].loc["cf"]["value"]
    assert end_to_end["Hit@1"] == pytest.approx(1 / 4)
    assert end_to_end["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3)) / 4)
    assert end_to_end["HR@10"] == pytest.approx(2 / 4)
    assert end_to_end["Recall@20"] == pytest.approx(3 / 4)
    assert end_to_end["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 11) / 4)
    assert found.loc[("retrieved", "found", "cf", "HR@10"), "value"] == pytest.approx(2 / 3)
    assert found.loc[("retrieved", "all", "retrieval", "recall"), ["value", "n"]].tolist() == [3 / 4, 4]
    assert found.loc[("retrieved", "warm", "cf", "HR@5"), "value"] == 1
    assert found.loc[("retrieved", "cold", "cf", "HR@10"), "value"] == 0
    sizes = {name: found.loc[("retrieved", name, "cf", "MRR"), "n"] for name in ("found", "warm", "middle")}
    assert sizes == {"found": 3, "warm": 2, "middle": 0}
    assert np.isnan(found.loc[("retrieved", "middle", "cf", "MRR"), "value"])
    row = found.loc[("retrieved", "all", "cf", "MRR")]
    assert row["low"] < row["value"] < row["high"]
    shuffled = results(frame.sample(frac=1, random_state=1), items, Config().evaluation, seed=0)
    pd.testing.assert_frame_equal(shuffled, found.reset_index())


def test_what_cannot_score_a_catalogue_is_there_with_its_order_of_the_retrieved_list() -> None:
    frame, items = ranked()
    found = results(frame, items, Config().evaluation, seed=0).set_index(KEYS)["value"]
    assert found["catalogue", "all", "cf", "HR@10"] == 2 / 4
    assert found["catalogue", "all", "cf", "HR@100"] == 3 / 4
    assert found["catalogue", "all", "served", "HR@100"] == 3 / 4
    assert found["catalogue", "all", "served", "Hit@1"] == found["retrieved", "all", "served", "Hit@1"]


def content_of_ranked() -> Content:
    """The content of `ranked()`, without probabilities and examples."""
    frame, items = ranked()
    figures = results(frame, items, Config().evaluation, seed=0)
    compared = comparisons(frame, seed=0)
    about_lists = Lists(20, 10, True, num_users=4, num_seen_before=1, num_unavailable=0)
    lists = frame.assign(probabilities=None)
    titled = items.assign(title=items["item_id"])
    return content_of("a title", figures, compared, frame, lists, titled, {}, about_lists)


def test_the_report_names_every_model_scenario_and_number_of_users() -> None:
    text = markdown(content_of_ranked())
    assert "own retrieved list, all users (n = 4" in text
    assert "own retrieved list, users whose next item is cold (n = 2" in text
    assert "not among the 20 retrieved is a miss" in text
    assert "retrieval's recall: 0.750 [" in text
    assert "whole catalogue, all users (n = 4" in text
    assert "Items that a user had before are left out" in text
    assert "the next item of 3 of 4 users: 1 had it before, 0 want an unavailable item" in text
    assert "A-LLMRec orders the best 10 (by the blend) of the candidates" in text
    assert "CF model" in text
    assert "0.250 [" in text
    assert "users whose next item is middle (n = 0" in text
    assert "No user is in this scenario" in text


def test_the_served_order_is_compared_with_every_other_ranker_end_to_end_and_alone() -> None:
    frame, _ = ranked()
    found = {(protocol, scenario): one for protocol, scenario, _, _, one in comparisons(frame, seed=0)}
    assert found["retrieved", "all"].n == 4
    assert found["retrieved", "found"].n == 3
    assert found["retrieved", "all"].difference == 0
    assert found["catalogue", "all"].difference > 0
    content = content_of_ranked()
    heading = "## the served order against the others, by the same users\n"
    assert "| whole catalogue " in markdown(content).partition(heading)[2]
    assert heading not in markdown(replace(content, comparisons=[]))


def test_a_paired_difference_is_told_apart_where_two_intervals_overlap() -> None:
    random = np.random.default_rng(0)
    first = random.random(400)
    second = first + 0.02 + random.normal(scale=0.05, size=400)
    one = paired(first, second, 1000, seed=0)
    assert (one.n, one.verdict) == (400, "better")
    assert one.difference == pytest.approx((second - first).mean())
    assert one.high - one.low == pytest.approx(2 * 1.96 * (second - first).std() / 20, rel=0.15)
    assert paired(second, first, 1000, seed=0).verdict == "worse"
    assert paired(first, random.permutation(first), 1000, seed=0).verdict.startswith("cannot be told apart")
    with pytest.raises(ValueError, match="400 and 399 users"):
        paired(first, second[1:], 1000, seed=0)


def test_as_many_users_as_a_comparison_names_tell_a_difference_of_one_percent() -> None:
    random = np.random.default_rng(1)

    def comparison(num_users: int) -> tuple[np.ndarray, np.ndarray]:
        first = random.normal(1.0, 0.3, num_users)
        return first, first + random.normal(0.01, 0.1, num_users)

    num_users = round(paired(*comparison(5000), 200, seed=0).num_users_for_small)
    assert num_users == pytest.approx((2.8016 * 0.1 / 0.01) ** 2, rel=0.1)
    told = [paired(*comparison(num_users), 200, seed=0).verdict == "better" for _ in range(200)]
    assert np.mean(told) == pytest.approx(0.8, abs=0.09)


def test_a_comparison_of_nobody_says_so(recwarn: pytest.WarningsRecorder) -> None:
    assert in_words("NDCG@10", paired(np.array([]), np.array([]), 100, seed=0)) == "no users"
    assert not recwarn.list


def test_a_target_that_is_not_among_the_candidates_has_no_rank() -> None:
    assert target_ranks([["a", "b"], ["a", "b"]], [[2, 1], [1, 2]], ["a", "x"]) == [2, None]


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


def users_of_the_tiny_shop() -> pd.DataFrame:
    """Histories with their targets; the last one is of an item that nobody had."""
    rows = [
        ("u1", ["i001", "i002"], "i004", ["i001", "i002", "i009"]),
        ("u2", ["i010"], "i003", ["i010"]),
        ("u3", ["i005", "i006", "i007"], "i020", ["i005", "i006", "i007"]),
        ("u4", ["i029"], "i012", ["i029"]),
    ]
    columns = ["user_id", "history", "target", "seen_before"]
    return pd.DataFrame(rows, columns=columns).assign(is_sampled=False)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_in_the_catalogue_are_those_of_one_list_with_every_item(
    tmp_path: Path, exclude_seen: bool
) -> None:
    bundle, users = tiny_bundle(tmp_path), users_of_the_tiny_shop()
    evaluation = bundle.config.evaluation.model_copy(update={"exclude_seen": exclude_seen})
    config = bundle.config.model_copy(update={"evaluation": evaluation})
    retriever, scorer = Retriever(bundle, None, config.candidates), Scorer(bundle, None, config)
    found = pd.concat(predictions("catalogue", users, retriever, scorer, config)).set_index(
        ["model", "user_id"]
    )
    ids = bundle.items["item_id"].tolist()
    for user in users.itertuples():
        out = set(user.seen_before) if exclude_seen else set()
        lists = retriever.score([user.user_id], [user.history], [[item for item in ids if item not in out]])
        lists = scorer.score(lists)
        for name in ("popularity", "text", "cf", "alignment", "blend_without_llm"):
            scores = rankers(bundle.blends, config.scoring)[name].scores(lists)[0]
            own = scores[lists.columns_of([user.target])[0]]
            row = found.loc[(name, user.user_id)]
            better, equal = (scores > own + 1e-6).sum(), (np.abs(scores - own) <= 1e-6).sum()
            assert better + 1 <= row["target_rank"] <= better + equal, name
            assert row["candidates"][0] == user.target
            assert len(row["candidates"]) == len(row["ranks"]) == min(NUM_STORED, len(lists.ids[0]) - 1) + 1
            assert len(set(row["candidates"])) == len(set(row["ranks"])) == len(row["ranks"])
            assert not set(row["candidates"]) & out
            best = dict(zip(row["ranks"], row["candidates"], strict=True))[1]
            assert scores[lists.columns_of([best])[0]] == pytest.approx(scores.max(), abs=1e-6), name


def test_equal_scores_in_the_catalogue_favour_nobody_and_are_the_same_for_every_ranker() -> None:
    users = [f"u{number}" for number in range(2000)]
    nothing, columns = np.zeros((2000, 10), dtype=bool), np.arange(2000) % 10
    draws = item_draws([f"i{number}" for number in range(10)], 0)
    ranks, best = ranks_in_catalogue(np.zeros((2000, 10)), nothing, columns, users, draws, 0, 3)
    assert np.bincount(ranks, minlength=11)[1:] == pytest.approx(np.full(10, 200), abs=60)
    again, _ = ranks_in_catalogue(np.ones((2000, 10)), nothing, columns, users, draws, 0, 3)
    assert ranks.tolist() == again.tolist()
    assert all(len(set(top)) == 3 and column not in top for top, column in zip(best, columns, strict=True))
    nan = np.array([[0.1, np.nan]])
    with pytest.raises(ValueError, match="not finite"):
        ranks_in_catalogue(nan, nothing[:1, :2], columns[:1], users[:1], draws[:2], 0, 1)


def test_retrieved_lists_are_a_nights_and_the_llm_reads_those_with_the_target(tmp_path: Path) -> None:
    bundle, users = tiny_bundle(tmp_path), users_of_the_tiny_shop()
    candidates = bundle.config.candidates.model_copy(update={"num_candidates": 12})
    config = bundle.config.model_copy(update={"candidates": candidates})
    retriever = Retriever(bundle, None, config.candidates)
    scorer = Scorer(bundle, tiny_llm(tmp_path), config)
    found = pd.concat(predictions("retrieved", users, retriever, scorer, config))
    columns = (users[name].tolist() for name in ("user_id", "history", "seen_before"))
    night = retriever.retrieve(*columns)
    for _, of_model in found.groupby("model"):
        assert of_model["candidates"].tolist() == night.listed(night.ids)
    has_target = night.columns_of(users["target"].tolist()) >= 0
    assert 0 < has_target.sum() < len(users)
    by_model = {name: rows for name, rows in found.groupby("model")}
    for rows in by_model.values():
        assert rows["target_rank"].notna().tolist() == has_target.tolist()
    asked = Scorer(bundle, tiny_llm(tmp_path), config).score(night.take(has_target).asking_llm(True))
    expected = ranks_of_candidates(
        rankers(bundle.blends, config.scoring)["llm"].scores(asked), asked, config.seed
    )
    assert by_model["llm"].loc[has_target, "ranks"].tolist() == expected


@pytest.mark.parametrize("protocol", ["retrieved", "catalogue"])
def test_a_target_that_a_night_would_hide_is_a_miss(tmp_path: Path, protocol: str) -> None:
    bundle = tiny_bundle(tmp_path)
    users = users_of_the_tiny_shop().assign(is_sampled=True)
    # u1 viewed the target before; the target of u2 is unavailable.
    users.at[0, "seen_before"] = ["i001", "i002", "i004"]
    available = np.ones(bundle.num_items + 1, dtype=bool)
    available[bundle.index["i003"]] = False
    candidates = bundle.config.candidates.model_copy(update={"num_candidates": bundle.num_items})
    config = bundle.config.model_copy(update={"candidates": candidates})
    retriever, scorer = Retriever(bundle, available, config.candidates), Scorer(bundle, None, config)
    found = pd.concat(predictions(protocol, users, retriever, scorer, config))
    for _, of_model in found.groupby("model"):
        assert of_model["target_rank"].notna().tolist() == [False, False, True, True]
        for shown, seen in zip(of_model["candidates"], users["seen_before"], strict=True):
            assert set(shown).isdisjoint({*seen, "i003"})


def test_the_floor_of_a_llmrec_is_the_read_candidates_in_drawn_order(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    candidates = [[f"i{number:03d}" for number in range(3, 23)]] * 400
    names = [f"u{number}" for number in range(400)]
    lists = Retriever(bundle, None, bundle.config.candidates).score(names, [["i001"]] * 400, candidates)
    scorer = Scorer(bundle, tiny_llm(tmp_path), bundle.config)
    lists = scorer.score(lists.asking_llm(True))
    assert (lists.part("read").sum(axis=1) == 10).all()
    ranks = np.array(ranks_of_candidates(PartRanker("read").scores(lists), lists, 0))
    assert (ranks[lists.part("read") == 1] <= 10).all()
    first = ranks[0].argmin()
    assert np.bincount(ranks[:, first], minlength=11)[1:] == pytest.approx(np.full(10, 40), abs=25)


def test_a_ranker_is_one_entry_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions of every protocol, results, text, page and costs have it."""
    entry = Entry("the newest idea", lambda blends, settings: PartRanker("read"), scores_catalogue=False)
    monkeypatch.setitem(RANKERS, "newest", entry)
    bundle = tiny_bundle(tmp_path)
    users = users_of_the_tiny_shop().assign(is_sampled=True)
    retriever, scorer = Retriever(bundle, None, bundle.config.candidates), Scorer(bundle, None, bundle.config)
    rows = pd.concat(
        rows
        for protocol in ("retrieved", "catalogue", "uniform")
        for rows in predictions(protocol, users, retriever, scorer, bundle.config)
    )
    assert "newest" not in set(rows[rows["protocol"] == "catalogue"]["model"])
    monkeypatch.setattr(metrics, "BOOTSTRAP_SAMPLES", 20)
    settings = bundle.config.evaluation
    vectors = bundle.text_embeddings[1:].numpy()
    costs = cost_figures({"lists": 1.0, "llm": 5.0}, {"lists": 4, "llm": 4}, rows["model"].unique())
    figures = pd.concat(
        [results(rows, bundle.items, settings, 0), list_figures(rows, bundle.items, vectors, 20, 0), costs]
    )
    assert set(figures[figures["model"] == "newest"]["protocol"]) == {"retrieved", "catalogue", "uniform"}
    assert costs.set_index("model")["value"]["newest"] == 250
    lists = Lists(20, 10, True, num_users=4, num_seen_before=0, num_unavailable=0)
    compared = comparisons(rows, 0)
    content = content_of("a title", figures, compared, rows, rows, bundle.items, {"u1": ["i001"]}, lists)
    assert markdown(content).count("the newest idea") >= 4
    assert page(content).count("the newest idea") >= 4


def test_rankers_of_another_version_are_shown_by_their_names() -> None:
    frame, _ = ranked()
    strange = frame[frame["model"] == "cf"].assign(model="of another version")
    [(_, by_model), *_] = by_protocol(pd.concat([strange, frame]))
    assert list(by_model)[-1] == "of another version"
    assert label_of("of another version") == "of another version"


def test_an_llm_that_writes_one_title_hits_with_it_or_misses(tmp_path: Path) -> None:
    bundle, users = tiny_bundle(tmp_path), users_of_the_tiny_shop()
    scoring = bundle.config.scoring.model_copy(update={"mode": "generate"})
    config = bundle.config.model_copy(update={"scoring": scoring})
    retriever = Retriever(bundle, None, config.candidates)
    by_rank, by_title = (
        pd.concat(predictions("uniform", users, retriever, Scorer(bundle, tiny_llm(tmp_path), one), one))
        .query("model == 'llm'")["target_rank"]
        .tolist()
        for one in (bundle.config, config)
    )
    assert [rank is not pd.NA for rank in by_title] == [rank == 1 for rank in by_rank]
    assert set(by_title) - {pd.NA} <= {1}


@pytest.mark.parametrize("match", ["begins", "contains"])
def test_a_text_hits_where_the_true_title_matches_it(tmp_path: Path, match: str) -> None:
    bundle, users, llm = tiny_bundle(tmp_path, layout="paper"), users_of_the_tiny_shop(), tiny_llm(tmp_path)
    scoring = bundle.config.scoring.model_copy(update={"mode": "free", "match": match})
    config = bundle.config.model_copy(update={"scoring": scoring})
    title_of = dict(zip(bundle.items["item_id"], bundle.items["title"], strict=True))
    true_titles = [title_of[target] for target in users["target"]]
    text = f'"{true_titles[0]}", "{true_titles[1]}", "{true_titles[2]}"'
    said = true_titles[:1] if match == "begins" else [title for title in true_titles if title in text]
    with patch.object(llm.tokenizer, "decode", return_value=text):
        scorer = Scorer(bundle, llm, config)
        retriever = Retriever(bundle, None, config.candidates)
        found = pd.concat(predictions("uniform", users, retriever, scorer, config))
    of_llm = found.query("model == 'llm'")["target_rank"]
    hits = [title for title, rank in zip(true_titles, of_llm, strict=True) if rank is not pd.NA]
    assert hits == [title for title in true_titles if title in said]
    assert set(of_llm) - {pd.NA} == {1}


def titles(*names: str) -> pd.DataFrame:
    descriptions = ["fine" if number % 2 else None for number, _ in enumerate(names)]
    ids = [f"i{number}" for number, _ in enumerate(names)]
    return pd.DataFrame({"item_id": ids, "title": names, "description": descriptions})


MANY = titles(*[f"red camping tent number {number}" for number in range(400)])


def test_missing_texts_are_untitled_for_about_the_share_whatever_the_order_of_the_items() -> None:
    found = spoiled(MANY, "missing", 0.3, seed=5)
    assert 0.2 < (found["title"] == NO_TITLE).mean() < 0.4
    assert (found["description"][found["title"] == NO_TITLE] == "").all()
    untouched = found["title"] != NO_TITLE
    assert found[untouched].equals(MANY[untouched])
    turned = spoiled(MANY.iloc[::-1], "missing", 0.3, seed=5)
    assert turned.iloc[::-1].equals(found)


def test_noisy_texts_lose_and_misspell_words_and_keep_one_at_least() -> None:
    found = spoiled(MANY, "noisy", 1.0, seed=5)
    words = [title.split() for title in found["title"]]
    assert 0.7 < sum(map(len, words)) / (5 * len(words)) < 0.9
    known = set(" ".join(MANY["title"]).split())
    assert 0.1 < sum(word not in known for title in words for word in title) / sum(map(len, words)) < 0.35
    assert all(title for title in spoiled(titles("x", "tent"), "noisy", 1.0, seed=5)["title"])


def test_a_condition_has_a_name_and_words_and_the_plain_one_none() -> None:
    def of(*overrides: str) -> str:
        return condition_of(load([], overrides))

    assert of() == condition_in_words("") == ""
    assert of("evaluation.max_history=3") == "history_3"
    both = of("evaluation.max_history=0", "evaluation.text=noisy", "evaluation.text_share=0.5")
    assert both == "history_0+noisy_text_0.5"
    assert condition_and_group(scenario_of(both, "cold")) == (both, "cold")
    assert condition_and_group(scenario_of("", "cold")) == ("", "cold")
    words = condition_in_words(both)
    assert words == "histories cut to 0 items, 50 % of the items: texts with lost and misspelled words"
    assert of("evaluation.trained_on=elsewhere", "scoring.mode=free") == "other_shop+free"
    assert condition_in_words("other_shop+free").endswith("the LLM writes freely")

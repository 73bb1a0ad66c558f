"""Re-rankers decide places, scores stay the relevance, and a new one is a class and a line."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from allmrec.bundle import Bundle
from allmrec.config import Config, ScoringConfig
from allmrec.errors import ConfigError
from allmrec.evaluation.protocols import predictions
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import served_order
from allmrec.ranking.rerankers import RERANKERS, require_known
from allmrec.ranking.served import ranked_rows
from allmrec.ranking.served_scores import ServedScores
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.text_vectors import text_vectors
from tests.unit.tiny_bundle import tiny_bundle

BLENDS = {name: BlendWeights({"cf": 1.0}, 0.0, 1.0, 0) for name in ("with_llm", "without_llm")}
IDS = [list("abcd"), list("ef"), []]
CF = [[4.0, 3.0, 2.0, 1.0], [1.0, 2.0], []]


class ReversedStart:
    """Reverses the first three places."""

    def places(
        self, lists: CandidateLists, order: ServedScores, places_BC: np.ndarray, vectors_BCS: np.ndarray
    ) -> np.ndarray:
        start_B1 = np.minimum(lists.counts, 3)[:, None]
        return np.where(places_BC <= start_B1, start_B1 + 1 - places_BC, places_BC)


class FirstByVector:
    """Puts the candidate with the largest first number of its vector in front."""

    def places(
        self, lists: CandidateLists, order: ServedScores, places_BC: np.ndarray, vectors_BCS: np.ndarray
    ) -> np.ndarray:
        values_BC = np.where(lists.present, vectors_BCS[:, :, 0], -np.inf)
        chosen_B = values_BC.argmax(axis=1)
        place_B1 = places_BC[np.arange(len(lists)), chosen_B][:, None]
        moved_BC = np.where(places_BC < place_B1, places_BC + 1, places_BC)
        moved_BC[np.arange(len(lists)), chosen_B] = 1
        return moved_BC


class OneForAll:
    """Gives every candidate the first place."""

    def places(
        self, lists: CandidateLists, order: ServedScores, places_BC: np.ndarray, vectors_BCS: np.ndarray
    ) -> np.ndarray:
        return np.ones_like(places_BC)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RERANKERS, "reversed", lambda settings: ReversedStart())
    monkeypatch.setitem(RERANKERS, "by_vector", lambda settings: FirstByVector())
    monkeypatch.setitem(RERANKERS, "wrong", lambda settings: OneForAll())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def vectors_of(lists: CandidateLists) -> np.ndarray:
    """One number for a text: 1 for `d` and `e`, else 0."""
    return np.isin(lists.ids.astype(str), ["d", "e"])[:, :, None].astype(np.float32)


def rank(*names: str, top_k: int = 10) -> pd.DataFrame:
    """The rows of three users under these re-rankers; the last one has no candidate."""
    lists = CandidateLists.of(["u", "v", "w"], [["h"]] * 3, IDS, [["cf"] * len(ids) for ids in IDS])
    values = lists.spread(np.array([value for row in CF for value in row]))
    lists = lists.with_parts({
        name: values for name in ("cf", "text", "alignment", "llm", "llm_logprob")
    })  # fmt: skip
    order = served_order(BLENDS, ScoringConfig(order="without_llm", rerankers=names))
    return ranked_rows(lists, order, top_k, 0, vectors_of)


def of_users(rows: pd.DataFrame) -> dict[str, list[str]]:
    return rows.groupby("user_id")["item_id"].agg(list).to_dict()


def test_the_rank_is_the_place_and_score_and_probability_stay_those_of_the_item() -> None:
    plain = rank()
    reranked = rank("reversed")
    assert of_users(plain) == {"u": list("abcd"), "v": list("fe")}
    assert of_users(reranked) == {"u": list("cbad"), "v": list("ef")}
    assert reranked["rank"].tolist() == [1, 2, 3, 4, 1, 2]
    assert reranked["rank"].dtype == np.int32
    assert not reranked[reranked["user_id"] == "u"]["score"].is_monotonic_decreasing
    by_item = ["user_id", "item_id"]
    same = plain.drop(columns="rank").sort_values(by_item, ignore_index=True)
    pd.testing.assert_frame_equal(reranked.drop(columns="rank").sort_values(by_item, ignore_index=True), same)


def test_the_first_places_are_served_after_re_ranking() -> None:
    assert of_users(rank("reversed", top_k=1)) == {"u": ["c"], "v": ["e"]}


def test_re_rankers_follow_one_another_and_read_the_vectors_of_texts() -> None:
    assert of_users(rank("by_vector")) == {"u": list("dabc"), "v": list("ef")}
    assert of_users(rank("by_vector", "reversed")) == {"u": list("badc"), "v": list("fe")}
    assert of_users(rank("reversed", "by_vector")) == {"u": list("dcba"), "v": list("ef")}


def test_places_with_a_gap_are_an_error_that_names_re_ranker_and_user() -> None:
    with pytest.raises(ValueError, match=r"OneForAll: places \[1, 1, 1, 1\] for user 'u', .* 1 to 4 once"):
        rank("wrong")


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    require_known(ScoringConfig(rerankers=("by_vector", "reversed")))
    expected = r"scoring\.rerankers: diverse, .* \(reversed, by_vector, wrong\)"
    for check in (require_known, partial(served_order, BLENDS)):
        with pytest.raises(ConfigError, match=expected):
            check(ScoringConfig(order="cf", rerankers=("reversed", "diverse")))


def test_the_vectors_are_the_embeddings_of_the_candidates_texts(bundle: Bundle) -> None:
    lists = CandidateLists.of(["u", "v"], [[], []], [["i003", "i001"], ["i030"]])
    vectors = text_vectors(bundle, lists)
    embeddings = bundle.text_embeddings.numpy()
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, [embeddings[[3, 1]], embeddings[[30, 0]]])
    assert not vectors[1, 1].any()


def with_rerankers(bundle: Bundle, *names: str) -> Config:
    scoring = bundle.config.scoring.model_copy(update={"rerankers": names})
    return bundle.config.model_copy(update={"scoring": scoring})


def test_the_evaluation_ranks_served_lists_as_the_night_and_the_others_by_score(bundle: Bundle) -> None:
    users = pd.DataFrame({
        "user_id": ["u0", "u1", "nobody"],
        "history": [["i001", "i002"], ["i010"], []],
        "target": ["i005", "i003", "i008"],
        "seen_before": [["i001", "i002"], ["i010"], []],
        "is_sampled": True,
    })  # fmt: skip
    found = {}
    for names in ((), ("reversed", "by_vector")):
        config = with_rerankers(bundle, *names)
        retriever = Retriever(bundle, None, config.candidates)
        scorer = Scorer(bundle, None, config)
        found[names] = pd.concat(predictions("retrieved", users, retriever, scorer, config))
    plain, reranked = found.values()
    is_served = (plain["model"] == "served").to_numpy()
    assert plain[~is_served]["ranks"].tolist() == reranked[~is_served]["ranks"].tolist()
    assert plain["scores"].tolist() == reranked["scores"].tolist()

    lists = retriever.retrieve(*(users[name].tolist() for name in ("user_id", "history", "seen_before")))
    order = served_order(bundle.blends, config.scoring)
    rows = ranked_rows(scorer.score(lists), order, 100, config.seed, partial(text_vectors, bundle))
    night = rows.groupby("user_id")["item_id"].agg(list)
    for row, before in zip(reranked[is_served].itertuples(), plain[is_served]["ranks"].tolist(), strict=True):
        ordered = [item for _, item in sorted(zip(row.ranks, row.candidates, strict=True))]
        assert ordered == night[row.user_id]
        assert row.ranks != before
        if row.target in row.candidates:
            assert row.target_rank == row.ranks[list(row.candidates).index(row.target)]

"""Candidates are the exact best of what may be recommended, each from a named source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from snapshot_fixture import write_snapshot

from allmrec.bundle import Bundle, FittedOrder
from allmrec.errors import InputError
from allmrec.ranking.search_weights import SearchWeights
from allmrec.scoring import assortment, retrieval
from allmrec.scoring.nearest import Search, nearest
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.signals import PRIOR, UNFITTED
from allmrec.scoring.user_vectors import left_padded
from allmrec.training.loader import Snapshot
from allmrec.training.order.fit_retrieval import fit_retrieval, held_back_users
from tests.unit.tiny_bundle import NUM_UNKNOWN, tiny_bundle

History = tuple[Sequence[str], Sequence[str] | None]
"""What a user had, and what the user has seen."""
NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def retriever(bundle: Bundle, available: set[str] | None = None, **settings: object) -> Retriever:
    return Retriever(
        bundle,
        None if available is None else np.array([False, *bundle.items["item_id"].isin(available)]),
        bundle.config.candidates.model_copy(update={"num_candidates": 10, "text_quota": 3, **settings}),
    )


def retrieve(found: Retriever, *users: tuple[Sequence[str], Sequence[str] | None]) -> pd.DataFrame:
    """Candidates of users u0, u1 …, given as (history, seen), as rows of the table `candidates`."""
    names = [f"u{number}" for number in range(len(users))]
    return found.retrieve(names, [history for history, _ in users], [seen for _, seen in users]).to_frame()


def score(found: Retriever, history: list[str], candidates: list[str]) -> pd.DataFrame:
    """The scores of given candidates of one user, as a row of the table `candidates`."""
    return found.score(["u"], [history], [candidates]).to_frame()


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_give_the_same_tops_as_full_sorts_with_ties_by_item(block: int) -> None:
    random = np.random.default_rng(0)
    vectors = torch.from_numpy(random.integers(-2, 3, (20, 3)).astype(np.float32))
    items = torch.from_numpy(random.integers(-2, 3, (101, 3)).astype(np.float32))
    pairs = [(vectors[:, :2], items[:, :2]), (vectors[:, 2:], items[:, 2:])]
    columns = np.array([idx for idx in range(1, 101) if idx % 5])
    searches = [Search(2, columns, 9), Search(1, columns[columns % 3 == 0], 12), Search(1, columns[:4], 3)]
    seen_rows, seen_items = np.repeat(np.arange(20), 30), random.integers(1, 101, 600)
    found = nearest(pairs, searches, seen_rows, seen_items, block)
    for search, (scores, best) in zip(searches, found, strict=True):
        full = np.sum([(users @ others.T).numpy() for users, others in pairs[: search.num_pairs]], axis=0)
        for row in range(20):
            allowed = [idx for idx in search.items if idx not in set(seen_items[seen_rows == row])]
            expected = sorted(allowed, key=lambda idx: (-full[row, idx], idx))[: search.wanted]
            missing = search.wanted - len(expected)
            assert best[row].tolist() == expected + [0] * missing
            assert scores[row].tolist() == [full[row, idx] for idx in expected] + [-np.inf] * missing


def test_a_row_with_fewer_items_than_wanted_is_filled_with_zeros() -> None:
    pairs = [(torch.ones(1, 4), torch.eye(4))]
    searches = [Search(1, np.array([1, 2, 3]), 5), Search(1, np.array([], dtype=np.int64), 2)]
    (scores, found), (_, nothing) = nearest(pairs, searches, np.array([0]), np.array([2]), 2)
    assert found.tolist() == [[1, 3, 0, 0, 0]]
    assert np.isneginf(scores[0, 2:]).all()
    assert nothing.tolist() == [[0, 0]]
    [(_, nothing)] = nearest(pairs, searches[1:], *NOTHING, 2)
    assert nothing.tolist() == [[0, 0]]


def test_left_padding_keeps_the_newest_in_order() -> None:
    padded = left_padded(np.array([0, 0, 0, 2]), np.array([5, 6, 7, 9]), 3, 2)
    assert padded.tolist() == [[6, 7], [0, 0], [0, 9]]


def test_candidates_are_distinct_unseen_and_available_and_the_quota_goes_to_rare_items(
    bundle: Bundle,
) -> None:
    available = set(bundle.items["item_id"]) - {"i004", "i005", "not in the bundle"}
    seen_by = (["i001", "i002", "i003", "gone"], ["i010"])
    found = retrieve(retriever(bundle, available), (["i001", "i002"], seen_by[0]), (["i010"], seen_by[1]))
    counts = bundle.items.set_index("item_id")["num_interactions"]
    assert found["user_id"].tolist() == ["u0", "u1"]
    for row, seen in zip(found.itertuples(), seen_by, strict=True):
        assert len(row.item_ids) == len(set(row.item_ids)) == len(row.cf_scores) == len(row.text_scores) == 10
        assert set(row.item_ids) <= available - set(seen)
        assert row.sources == ["cf"] * 7 + ["text"] * 3
        assert all(counts[item] < 5 for item in row.item_ids[7:])
        for item, cf_score in zip(row.item_ids, row.cf_scores, strict=True):
            assert (cf_score is None) == (counts[item] == 0)


def test_candidates_are_the_best_by_the_weighted_z_scores_of_all_signals(bundle: Bundle) -> None:
    weights = {"cf": 0.5, "alignment": 0.3, "text": 0.2}
    searched = bundle.with_state(FittedOrder(SearchWeights(weights, 0.4, 0)))
    history = ["i001", "i002", "i028"]  # the last one is new to the CF model
    found = retriever(searched, text_quota=0).retrieve(["u"], [history], [history])
    lists = Scorer(bundle, None, bundle.config).fill_catalogue(retriever(bundle).score_all(["u"], [history]))
    parts = {name: lists.part(name)[0] for name in weights}
    known = bundle.known[1:]
    scores = np.zeros(len(known))
    for name, weight in weights.items():
        values = parts[name][known] if name == "cf" else parts[name]
        scores += weight * np.where(np.isnan(parts[name]), 0.0, (parts[name] - values.mean()) / values.std())
    scores[~known] += 0.4
    scores[[0, 1, 27]] = -np.inf
    assert found.ids[0].tolist() == [f"i{idx + 1:03d}" for idx in np.argsort(-scores)[:10]]
    assert set(found.sources[0]) == {"cf"}


def test_a_bundle_from_before_there_were_weights_is_searched_by_their_prior(bundle: Bundle) -> None:
    old = retrieve(retriever(bundle), (["i001"], ["i001"]))
    unfitted = bundle.with_state(replace(bundle.order, search=UNFITTED))
    new = retrieve(retriever(unfitted), (["i001"], ["i001"]))
    assert bundle.search is None
    assert old["item_ids"].tolist() == new["item_ids"].tolist()


def test_text_scores_are_the_cosine_with_the_mean_of_the_last_ten_centred(bundle: Bundle) -> None:
    history = [f"i{idx:03d}" for idx in range(1, 13)]
    found = score(retriever(bundle), history, ["i020", "i030"])
    q = bundle.rec.joint()[1][1:].double()
    q = q - q.mean(dim=0)
    expected = torch.nn.functional.cosine_similarity(q[2:12].mean(dim=0, keepdim=True), q[[19, 29]])
    assert found["text_scores"][0] == pytest.approx(expected.tolist(), abs=1e-5)
    assert found["cf_scores"][0][1] is None
    assert found["sources"][0] == ["cf", "text"]


def test_without_any_rare_item_the_quota_goes_to_cf(bundle: Bundle) -> None:
    counts = bundle.items.set_index("item_id")["num_interactions"]
    common = set(counts[counts >= 5].index)
    assert retrieve(retriever(bundle, common), (["i001"], ["i001"]))["sources"][0] == ["cf"] * 10


def test_users_without_known_history_get_popular_items_in_order(bundle: Bundle) -> None:
    found = retrieve(retriever(bundle), ([], None), (["nobody knows"], ["nobody knows", "i008"]))
    by_count = bundle.items.sort_values(["num_interactions", "item_idx"], ascending=[False, True])
    ordered = by_count["item_id"].tolist()
    assert found["item_ids"][0] == ordered[:10]
    assert found["item_ids"][1] == [item for item in ordered if item != "i008"][:10]
    assert all(source == "popular" for sources in found["sources"] for source in sources)
    assert all(cf_score is None for scores in found["cf_scores"] for cf_score in scores)
    assert set(found["text_scores"][0]) == {0.0}


def test_a_history_of_items_new_to_the_cf_model_is_answered_by_text(bundle: Bundle) -> None:
    new = [f"i{idx:03d}" for idx in range(30 - NUM_UNKNOWN + 1, 30)]
    found = retrieve(retriever(bundle), (new, new))
    assert found["sources"][0] == ["text"] * 10
    assert all(cf_score is None for cf_score in found["cf_scores"][0])


def test_a_user_who_has_seen_everything_gets_nothing_and_others_are_not_touched(bundle: Bundle) -> None:
    everything = bundle.items["item_id"].tolist()
    long_log = everything * (100_000 // len(everything)) + [f"gone{n}" for n in range(50)]
    users: tuple[History, ...] = ((everything, long_log), (["i001"], ["i001"]), ([], everything[:-2]))
    found = retrieve(retriever(bundle), *users)
    assert found["item_ids"].map(len).tolist() == [0, 10, 2]
    assert found["cf_scores"][0] == found["text_scores"][0] == found["sources"][0] == []
    assert found["item_ids"][2] == everything[-2:]


def test_seen_items_stay_when_the_setting_says_so(bundle: Bundle) -> None:
    everything = bundle.items["item_id"].tolist()
    found = retrieve(retriever(bundle, exclude_seen=False), (everything, everything))
    assert len(found["item_ids"][0]) == 10


def test_a_catalogue_of_three_items_gives_at_most_three(bundle: Bundle) -> None:
    users: tuple[History, ...] = ((["i005"], ["i005"]), ([], []), (["i001"], ["i001"]))
    found = retrieve(retriever(bundle, {"i001", "i002", "i030"}), *users)
    all_three = ["i001", "i002", "i030"]
    assert found["item_ids"].map(sorted).tolist() == [all_three, all_three, ["i002", "i030"]]


def test_no_user_and_no_available_item_are_no_error(bundle: Bundle) -> None:
    nobody = retrieve(retriever(bundle))
    assert nobody.empty
    assert list(nobody.columns)[1] == "item_ids"
    assert retrieve(retriever(bundle, set()), (["i001"], []), ([], []))["item_ids"].tolist() == [[], []]


def test_candidates_do_not_depend_on_chunks_blocks_or_numpy_lists(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(1)
    histories = [[f"i{idx:03d}" for idx in random.integers(1, 31, random.integers(0, 15))] for _ in range(40)]
    once = retrieve(retriever(bundle), *((history, history) for history in histories))
    arrays = [(np.array(history, dtype=object), history) for history in histories]
    monkeypatch.setattr(retrieval, "CHUNK_USERS", 7)
    monkeypatch.setattr(assortment, "BLOCK_ITEMS", 4)
    again = retrieve(retriever(bundle), *arrays)  # type: ignore[arg-type]
    for column in ("item_ids", "sources"):
        assert once[column].tolist() == again[column].tolist()


def test_a_candidate_that_the_bundle_lacks_is_refused_by_name(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="'i999' is not in the bundle"):
        score(retriever(bundle), ["i001"], ["i001", "i999"])


def held_back_by_text(bundle: Bundle, folder: Path, num_users: int) -> Snapshot:
    """A snapshot whose users all went on to the item whose text is nearest to their history's."""
    random = np.random.default_rng(3)
    sequences = {
        f"u{number:03d}": (1 + random.permutation(24)[: random.integers(2, 6)]).tolist()
        for number in range(num_users)
    }
    ids = bundle.items["item_id"].tolist()
    histories = [[ids[idx - 1] for idx in items] for items in sequences.values()]
    text = np.nan_to_num(retriever(bundle).score_all(list(sequences), histories).part("text"))
    held_back = {}
    for row, (user, items) in enumerate(sequences.items()):
        text[row, np.array(items) - 1] = -np.inf
        held_back[user] = (int(text[row].argmax()) + 1, ("early_stop", "blend")[row % 2])
    return Snapshot(write_snapshot(folder, sequences, bundle.items["title"].tolist(), held_back))


def test_weights_follow_what_told_the_held_back_items(bundle: Bundle, tmp_path: Path) -> None:
    few, many = (
        fit_retrieval(bundle, held_back_by_text(bundle, tmp_path / str(number), number), bundle.config)
        for number in (4, 200)
    )
    assert (few.num_users, many.num_users) == (4, 200)
    assert sum(many.weights.values()) == pytest.approx(1)
    assert few.weights["cf"] == max(few.weights.values())  # few users hardly move the prior
    assert many.weights["text"] == max(many.weights.values())
    snapshot = held_back_by_text(bundle, tmp_path / "again", 200)
    rows = held_back_users(snapshot, bundle.config)
    recall = {}
    for name, weights in {"unfitted": UNFITTED, "fitted": many}.items():
        searched = retriever(bundle.with_state(FittedOrder(weights)), num_candidates=3, text_quota=0)
        ids = bundle.items["item_id"].tolist()
        histories = [[ids[idx - 1] for idx in row if idx] for row in rows["item_idx"]]
        lists = searched.retrieve(rows["user_id"].tolist(), histories, histories)
        found = lists.columns_of([ids[idx - 1] for idx in rows["held_back"]]) >= 0
        recall[name] = found.mean()
    assert recall["fitted"] > 0.9 > recall["unfitted"] + 0.2


def test_without_users_the_weights_of_the_signals_are_their_prior(bundle: Bundle, tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"u": [1, 2]}, bundle.items["title"].tolist()))
    nobody = fit_retrieval(bundle, snapshot, bundle.config)
    total = sum(PRIOR.values())
    assert nobody.weights == pytest.approx({name: weight / total for name, weight in PRIOR.items()})

"""Links between items: what they are, in the search, in a blend, and in a bundle."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from snapshot_fixture import write_snapshot

from allmrec.bundle import Bundle, FittedOrder, LinkState, extend_bundle, load_bundle, save_bundle
from allmrec.errors import BundleError
from allmrec.models import links as module
from allmrec.models.links import DECAY, HISTORY, SHRINK, Links, Vocabulary, together
from allmrec.parts import LINKS
from allmrec.ranking.search_weights import SearchWeights
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.scoring.user_vectors import left_padded
from allmrec.training.links import count_links
from allmrec.training.loader import Snapshot
from tests.unit.tiny_bundle import tiny_bundle, tiny_catalogue, tiny_encoder, tiny_links, tiny_llm

TITLES = ["Acme tent red", "Acme tent, blue", "Öko-Stuhl red", "", "tent tent 4", "中文 Acme"]
FINISHED = {"purpose": "serving", "trained_before": "2026-01-01", "fingerprint": "x", "figures": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("links")


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return tiny_bundle(root)


def recent(links: Links, *histories: list[int]) -> sparse.csr_matrix:
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    return links.recent(left_padded(rows, items, len(histories), HISTORY))


def of_words(title: str, other: str, titles: list[str]) -> float:
    """The link of two titles by words, in plain Python."""
    split = [set(module.words_of(text)) for text in titles]
    counts = Counter(word for words in split for word in words)
    idf = {word: math.log((1 + len(titles)) / (1 + count)) for word, count in counts.items()}
    one, two = (set(module.words_of(text)) for text in (title, other))
    lengths = [math.sqrt(sum(idf[word] ** 2 for word in words)) for words in (one, two)]
    return sum(idf[word] ** 2 for word in one & two) / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def test_links_by_words_and_brand_are_those_of_plain_python() -> None:
    links = Links.of(Vocabulary.of(TITLES), TITLES, sparse.csr_matrix((7, 7), dtype=np.float32))
    alone = recent(links, *([item] for item in range(1, 7)))
    words = links.signal("words", alone).toarray()[:, 1:]
    expected = [[of_words(one, other, TITLES) for other in TITLES] for one in TITLES]
    np.testing.assert_allclose(words, expected, atol=1e-6)
    first = [title.lower().replace(",", "").split()[:1] for title in TITLES]
    first[2] = ["öko"]
    brand = [[float(bool(one) and one == other) for other in first] for one in first]
    np.testing.assert_array_equal(links.signal("brand", alone).toarray()[:, 1:], brand)


def test_words_of_many_items_count_for_the_length_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_COMMON", 2)
    rows = Vocabulary.of(TITLES).word_rows(TITLES)
    columns = list(Vocabulary.of(TITLES).counts)
    assert rows[:, columns.index("acme")].nnz == 0  # three titles
    assert rows[:, columns.index("red")].nnz == 2
    assert 0 < rows[0].multiply(rows[0]).sum() < 1


def test_a_signal_adds_up_over_the_newest_items_and_older_ones_count_less() -> None:
    links = tiny_links(TITLES)
    history = [1, 2, 3, 5, 6, 1, 2, 3, 5, 6, 2, 1]
    by_hand = sum(
        DECAY**age * links.signal("words", recent(links, [item])).toarray()[0]
        for age, item in enumerate(reversed(history[-HISTORY:]))
    )
    np.testing.assert_allclose(links.signal("words", recent(links, history)).toarray()[0], by_hand, atol=1e-5)


@pytest.mark.parametrize("name", LINKS)
def test_the_signal_of_a_user_depends_on_no_other_user(name: str) -> None:
    links = tiny_links(TITLES)
    histories = [[1, 2], [], [3, 3, 1], [6, 5, 4, 3, 2, 1]]
    together_rows = links.signal(name, recent(links, *histories)).toarray()
    alone = [links.signal(name, recent(links, history)).toarray()[0] for history in histories]
    np.testing.assert_array_equal(together_rows, alone)
    assert not together_rows[1].any()


def test_links_by_users_count_the_pairs_at_most_five_places_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sequences = {f"u{user}": random.integers(1, 7, random.integers(1, 9)).tolist() for user in range(40)}
    snapshot = Snapshot(write_snapshot(tmp_path / "s", sequences, TITLES, max_history=8))
    found = count_links(snapshot, snapshot.items()).together.toarray()
    pairs: Counter[tuple[int, int]] = Counter()
    counts: Counter[int] = Counter()
    for items in sequences.values():
        counts.update(items)
        for place, item in enumerate(items):
            for other in items[place + 1 : place + 6]:
                pairs[item, other] += 1
                pairs[other, item] += 1
    expected = np.zeros((7, 7))
    for (item, other), count in pairs.items():
        if item != other:
            expected[item, other] = count / math.sqrt((counts[item] + SHRINK) * (counts[other] + SHRINK))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_item_keeps_its_strongest_links_and_of_equals_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEIGHBOURS", 2)
    pairs = sparse.csr_matrix(np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 5], [0, 1, 5, 9]], dtype=float))
    links = together(pairs, np.zeros(4)) * SHRINK
    np.testing.assert_allclose(links.toarray()[1:, 1:], [[0, 1, 1], [1, 0, 5], [1, 5, 0]])
    monkeypatch.setattr(module, "NEIGHBOURS", 1)
    links = together(pairs, np.zeros(4)) * SHRINK
    np.testing.assert_allclose(links.toarray()[1:, 1:], [[0, 1, 0], [0, 0, 5], [0, 5, 0]])


@pytest.mark.parametrize("num_available", [30, 7])
def test_the_search_with_links_finds_the_best_of_a_full_sort(bundle: Bundle, num_available: int) -> None:
    weights = SearchWeights({"words": 0.6, "together": 0.3, "text": 0.1}, 0.0, 1)
    searching = bundle.with_state(FittedOrder(weights))
    available = np.arange(31) % (30 // num_available) == 0
    settings = bundle.config.candidates.model_copy(update={"num_candidates": 5, "text_quota": 0})
    retriever = Retriever(searching, available, settings)
    ids = bundle.items["item_id"].tolist()
    histories = [[ids[3], ids[8]], [ids[20]], ids[:12]]
    lists = retriever.retrieve(["a", "b", "c"], histories, histories)

    links = bundle.links
    assert links is not None
    weighted = recent(links, *([ids.index(item) + 1 for item in history] for history in histories))
    text = retriever.score_all(["a", "b", "c"], histories).part("text")
    scores = 0.1 * text / text.std(axis=1, keepdims=True)
    for name in ("words", "together"):
        signal = links.signal(name, weighted).toarray()[:, 1:].astype(np.float64)
        deviation = signal.std(axis=1, keepdims=True)
        scores += weights.weights[name] * signal / np.where(deviation > 0, deviation, 1.0)
    for row, history in enumerate(histories):
        scores[row, [ids.index(item) for item in history]] = -np.inf
    scores[:, ~available[1:]] = -np.inf
    for row, found in enumerate(lists.listed(lists.ids)):
        order = np.argsort(-scores[row], kind="stable")
        expected = [ids[item] for item in order[:5] if np.isfinite(scores[row, item])]
        assert found == expected


def test_parts_of_candidates_are_those_of_the_whole_catalogue(bundle: Bundle) -> None:
    settings = bundle.config.candidates
    retriever = Retriever(bundle, None, settings)
    scorer = Scorer(bundle, None, bundle.config)
    ids = bundle.items["item_id"].tolist()
    histories = [[ids[3], ids[8]], [], ids[:12]]
    users = ["a", "b", "c"]
    few = scorer.score(retriever.score(users, histories, [ids[2:9], ids[:3], ids[20:]]))
    all_items = scorer.fill_catalogue(retriever.score_all(users, histories))
    for name in LINKS:
        for row, items in enumerate(few.listed(few.ids)):
            columns = [ids.index(item) for item in items]
            np.testing.assert_array_equal(
                few.part(name)[row, : len(items)], all_items.part(name)[row, columns]
            )
        assert np.nanmax(few.part(name)) > 0


def test_new_items_leave_the_links_of_others_unchanged(bundle: Bundle, root: Path, tmp_path: Path) -> None:
    saved = load_bundle(tmp_path / save_bundle(tmp_path, bundle, FINISHED), tiny_llm(root))
    catalogue = tiny_catalogue()[["item_id", "title", "description"]]
    more = catalogue.iloc[:2].assign(item_id=["new1", "new2"], title=["red tent zeppelin", "zeppelin"])
    everything = pd.concat([catalogue, more], ignore_index=True)
    child = extend_bundle(saved, everything, tiny_encoder(root), tiny_llm(root), tmp_path / "cache")
    before, after = saved.links, child.links
    assert before is not None
    assert after is not None
    for name in LINKS:
        old = before.signal(name, recent(before, [3, 8], [1])).toarray()
        new = after.signal(name, recent(after, [3, 8], [1])).toarray()
        np.testing.assert_array_equal(new[:, : old.shape[1]], old)
    of_new = after.signal("words", recent(after, [31])).toarray()[0]
    assert of_new[32] > 0
    assert of_new[1:31].any()
    assert not after.signal("together", recent(after, [31])).nnz


def test_a_bundle_without_links_searches_and_scores_without_them(bundle: Bundle) -> None:
    states = {name: state for name, state in bundle.states.items() if name != LinkState.name}
    old = replace(bundle, states=states)
    assert old.links is None
    ids = bundle.items["item_id"].tolist()
    lists = Retriever(old, None, bundle.config.candidates).retrieve(["a"], [ids[:3]], [ids[:3]])
    scored = Scorer(old, None, bundle.config).score(lists)
    for name in LINKS:
        assert np.isnan(scored.part(name)).all()


def wider(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the rows with a value in one more column."""
    return sparse.hstack([rows, np.ones((rows.shape[0], 1), np.float32)]).tocsr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda links: replace(links, vocabulary=Vocabulary(30, {"tent": 31})), "words.json"),
        (lambda links: replace(links, words=wider(links.words)), "links_words_columns"),
    ],
)
def test_wrong_links_are_refused_by_their_file(
    bundle: Bundle, tmp_path: Path, change: object, message: str
) -> None:
    assert callable(change)
    wrong = bundle.with_state(LinkState(change(bundle.links)))
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path / save_bundle(tmp_path, wrong, FINISHED), None)

"""Orders are fitted on the lists that a night would have served, and recall is that of these lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from allmrec.bundle import Bundle, FittedOrder
from allmrec.config import Config
from allmrec.scoring.retrieval import Retriever
from allmrec.training.cf import _early_stopping_users
from allmrec.training.loader import Snapshot
from allmrec.training.order.fit_order import blend_lists
from allmrec.training.order.fit_retrieval import fit_retrieval
from allmrec.training.order.held_back import comes_again, held_back_users
from tests.unit.snapshot_fixture import write_snapshot
from tests.unit.tiny_bundle import tiny_bundle

NUM_USERS, UNAVAILABLE = 120, (2, 11)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle")).with_state(FittedOrder())


@pytest.fixture
def snapshot(bundle: Bundle, tmp_path: Path) -> Snapshot:
    """A shop in which every second user buys again what the user had before."""
    random = np.random.default_rng(5)
    sequences, held_back = {}, {}
    for number in range(NUM_USERS):
        items = (1 + random.permutation(24)[: random.integers(3, 7)]).tolist()
        user = f"u{number:03d}"
        sequences[user] = items[:-1]
        role = ("early_stop", "blend")[number // 2 % 2]
        held_back[user] = (items[0] if number % 2 else items[-1], role)
    titles = bundle.items["title"].tolist()
    return Snapshot(write_snapshot(tmp_path / "s", sequences, titles, held_back, unavailable=UNAVAILABLE))


def config_of(bundle: Bundle, exclude_seen: bool) -> Config:
    changes = {"exclude_seen": exclude_seen, "num_candidates": 8}
    candidates = bundle.config.candidates.model_copy(update=changes)
    return bundle.config.model_copy(update={"candidates": candidates})


def test_recall_and_lists_of_the_fit_are_those_of_a_night(bundle: Bundle, snapshot: Snapshot) -> None:
    """The oracle: a night's lists for the same users, with what they had before as seen."""
    for exclude_seen in (True, False):
        config = config_of(bundle, exclude_seen)
        rows = held_back_users(snapshot, config)
        ids = bundle.items["item_id"].tolist()
        histories = [[ids[idx - 1] for idx in items if idx] for items in rows["item_idx"]]
        available = np.array([idx > 0 and idx not in UNAVAILABLE for idx in range(bundle.num_items + 1)])
        night = Retriever(bundle, available, config.candidates).retrieve(
            rows["user_id"].tolist(), histories, histories
        )
        wanted = [ids[idx - 1] for idx in rows["held_back"]]
        found = night.columns_of(wanted) >= 0
        lists, targets, recall = blend_lists(bundle, snapshot, config)
        assert lists.listed(lists.ids) == night.take(found).listed(night.take(found).ids)
        assert targets == [item for item, is_found in zip(wanted, found, strict=True) if is_found]
        assert recall == found.mean()
        again = comes_again(rows)
        assert 0.4 < again.mean() < 0.6
        assert (found & again).any() != exclude_seen


def test_nobody_wants_an_item_that_is_unavailable(bundle: Bundle, snapshot: Snapshot) -> None:
    rows = held_back_users(snapshot, config_of(bundle, exclude_seen=True))
    assert not set(rows["held_back"]) & set(UNAVAILABLE)
    everybody = {user for role in ("early_stop", "blend") for user in snapshot.held_back(role)["user_id"]}
    assert 0 < len(rows) < len(everybody) == NUM_USERS
    assert np.flatnonzero(~snapshot.available_items()).tolist() == [0, *UNAVAILABLE]


def test_weights_and_early_stopping_look_at_items_that_a_list_can_hold(
    bundle: Bundle, snapshot: Snapshot
) -> None:
    numbers = {}
    for exclude_seen in (True, False):
        config = config_of(bundle, exclude_seen)
        numbers[exclude_seen] = (
            fit_retrieval(bundle, snapshot, config).num_users,
            len(_early_stopping_users(snapshot, config)),
        )
    assert numbers[False] == (len(held_back_users(snapshot, config)), NUM_USERS // 2)
    assert 0.4 < numbers[True][0] / numbers[False][0] < 0.6
    assert numbers[True][1] == NUM_USERS // 4

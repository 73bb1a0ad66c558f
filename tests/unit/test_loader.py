from __future__ import annotations

import json
import random as python_random
from pathlib import Path

import numpy as np
import pytest
from snapshot_fixture import chain_snapshot, write_snapshot

from allmrec.errors import InputError
from allmrec.training.loader import Snapshot


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Snapshot(chain_snapshot(tmp_path_factory.mktemp("snapshot") / "s", num_users=75))


def rows_of(snapshot: Snapshot, seed: int, epoch: int, **options: int) -> list[tuple[int, ...]]:
    return [
        tuple(row)
        for batch in snapshot.epoch(16, seed, epoch, ("item_idx",), **options)
        for row in batch["item_idx"]
    ]


def test_an_epoch_yields_every_row_once_in_fixed_shapes(snapshot: Snapshot) -> None:
    batches = list(snapshot.epoch(16, seed=0, epoch=0, columns=("user_id", "item_idx", "held_back")))
    assert [len(batch["user_id"]) for batch in batches] == [16, 16, 16, 16, 11]
    assert all(batch["item_idx"].shape[1] == 8 and batch["item_idx"].dtype == np.int32 for batch in batches)
    assert sorted(user for batch in batches for user in batch["user_id"]) == [
        f"u{number:04d}" for number in range(75)
    ]


def test_the_order_is_a_function_of_seed_and_epoch_alone(snapshot: Snapshot) -> None:
    first = rows_of(snapshot, 3, 1)
    python_random.seed(99)
    np.random.seed(99)
    assert rows_of(snapshot, 3, 1) == first
    others = [rows_of(snapshot, 3, 2), rows_of(snapshot, 4, 1), rows_of(snapshot, 0, 1)]
    assert all(other != first and sorted(other) == sorted(first) for other in others)


def test_a_small_shuffle_buffer_loses_no_row(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_of(snapshot, 3, 1)
    monkeypatch.setattr("allmrec.training.loader.SHUFFLE_BUFFER_ROWS", 20)
    assert sorted(rows_of(snapshot, 3, 1)) == sorted(whole)


def test_a_snapshot_may_lie_in_a_folder_of_any_name_that_petastorm_can_read(tmp_path: Path) -> None:
    strange = Snapshot(chain_snapshot(tmp_path / "50 % größer; a+b&c"))
    assert len(rows_of(strange, 1, 0)) == len(strange.lengths())
    with pytest.raises(InputError, match="# or"):
        rows_of(Snapshot(chain_snapshot(tmp_path / "no #1")), 1, 0)


def test_short_sequences_can_be_left_out(tmp_path: Path) -> None:
    snapshot = Snapshot(
        write_snapshot(tmp_path / "s", {"a": [1], "b": [1, 2], "c": [2, 3], "d": [3, 1, 2]}, ["x", "y", "z"])
    )
    assert len(rows_of(snapshot, 1, 0, min_length=2)) == 3
    assert [len(batch["item_idx"]) for batch in snapshot.epoch(2, 1, 0, min_length=2)] == [2, 1]
    assert (snapshot.num_batches(3), snapshot.num_batches(3, min_length=2)) == (2, 1)


def test_lost_rows_are_noticed(tmp_path: Path) -> None:
    folder = chain_snapshot(tmp_path / "s")
    sorted((folder / "sequences").glob("*.parquet"))[0].unlink()
    with pytest.raises(InputError, match="read 40 rows, expected 80"):
        list(Snapshot(folder).epoch(16, 1, 0))


def test_items_and_held_back_rows_are_read_as_written(snapshot: Snapshot) -> None:
    items = snapshot.items()
    assert items["item_idx"].tolist() == list(range(1, 13))
    assert items["num_interactions"].sum() == snapshot.lengths().sum()
    held_back = snapshot.held_back("early_stop")
    assert held_back["user_id"].is_monotonic_increasing
    assert len(held_back) == 37
    assert (held_back["held_back"] > 0).all()
    assert held_back["item_idx"].iloc[0].shape == (8,)
    assert snapshot.held_back("blend").empty


def test_train_items_can_be_targets_the_last_one_or_all(tmp_path: Path) -> None:
    sequences = {"b": [3, 1, 3, 2], "a": [4], "c": list(range(1, 12))}
    folder = write_snapshot(tmp_path / "s", sequences, ["x"] * 12, {"b": (9, "early_stop")}, max_history=5)
    rows = Snapshot(folder).train_targets("last")
    assert rows["user_id"].tolist() == ["b", "c"]
    assert rows["held_back"].tolist() == [2, 11]
    assert [items.tolist() for items in rows["item_idx"]] == [[0, 0, 3, 1, 3], [0, 7, 8, 9, 10]]
    assert rows["length"].tolist() == [3, 4]
    assert [items.tolist() for items in rows["seen_before"]] == [[1, 3], [7, 8, 9, 10]]
    assert set(rows) == set(Snapshot(folder).held_back("early_stop"))
    every = Snapshot(folder).train_targets("all").query("user_id == 'b'")
    assert every["held_back"].tolist() == [1, 3, 2]
    assert [items.tolist() for items in every["item_idx"]] == [
        [0] * 4 + [3],
        [0] * 3 + [3, 1],
        [0, 0, 3, 1, 3],
    ]
    assert every["length"].tolist() == [1, 2, 3]


def test_items_without_interactions_are_not_known(tmp_path: Path) -> None:
    snapshot = Snapshot(write_snapshot(tmp_path / "s", {"a": [1, 3]}, ["x", "y", "z"], num_files=1))
    assert snapshot.known_items().tolist() == [False, True, False, True]


def test_a_folder_that_is_no_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: missing"):
        Snapshot(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"num_items": 3}))
    with pytest.raises(InputError, match="no num_sequences, max_history"):
        Snapshot(tmp_path)

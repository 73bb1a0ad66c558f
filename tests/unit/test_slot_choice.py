"""What workers read of a shipped bundle, and slots of frames as Spark sends them. No JVM, no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from allmrec.config import PublishConfig, load
from allmrec.night.item_table import ItemTable, mapped
from allmrec.night.slot_choice import CHOICE, chosen

VECTORS = np.array([[0, 0], [3, 4], [0, 2], [0, 0]], dtype=np.float32)
CF_VECTORS = np.array([[0, 0, 0], [0, 0, 5], [9, 9, 9]], dtype=np.float32)
"""Of the padding, a and b: the CF model is older than the item c, and does not know b."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a bundle that are read, with the items a, b and c."""
    other = {"known": np.array([False, True, False, True]), "zzz": np.arange(7, dtype=np.int64)}
    save_file({"text_embeddings": VECTORS, **other}, tmp_path / "items.safetensors")
    save_file({"item_embedding.weight": CF_VECTORS}, tmp_path / "cf.safetensors")
    items = {
        "item_id": ["a", "b", "c"],
        "title": ["A pot", "{reason} %s", "C"],
        "num_interactions": [2, 1, 0],
    }
    pd.DataFrame({"item_idx": [1, 2, 3], **items}).to_parquet(tmp_path / "items.parquet")
    return tmp_path


def test_a_tensor_is_the_one_that_the_library_of_safetensors_reads(folder: Path) -> None:
    path = folder / "items.safetensors"
    for name in ("text_embeddings", "known"):
        np.testing.assert_array_equal(mapped(path, name), load_file(path)[name])
    with pytest.raises(KeyError):
        mapped(path, "soft_items")


def test_vectors_have_length_one_and_unknown_items_have_none(folder: Path) -> None:
    found = ItemTable(folder).text_vectors(np.array(["b", "x", "a", "c"], dtype=object))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.0, 1.0], [0.0, 0.0], [0.6, 0.8], [0.0, 0.0]])


def test_an_item_that_the_cf_model_does_not_know_has_no_cf_vector(folder: Path) -> None:
    ids = np.array(["a", "b", "c", "x"], dtype=object)
    table = ItemTable(folder)
    np.testing.assert_allclose(table.cf_vectors(ids), [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    (folder / "cf.safetensors").unlink()
    save_file({"other": CF_VECTORS}, folder / "cf.safetensors")
    assert not ItemTable(folder).cf_vectors(ids).any(), "a model without a table of items"


def test_titles_and_new_items_are_those_of_the_bundle(folder: Path) -> None:
    ids = np.array(["c", "x", "b"], dtype=object)
    assert ItemTable(folder).titles(ids).tolist() == ["C", None, "{reason} %s"]
    assert ItemTable(folder).is_new(ids).tolist() == [True, True, False]


FIRST = ("ids", "titles", "scores", "shown", "popular", "kind", "pinned", "buried", "history", "recent")


def columns(*users: dict[str, Any], others: tuple[str, ...] = ()) -> list[pd.Series]:
    """The arguments of the chooser; each user has ids, titles, scores, and what differs from the rest.

    `others` are the names of boosts, then of caps.
    """
    rows = []
    for user in users:
        size = len(user["ids"])
        usual: dict[str, list[Any]] = {name: [False] * size for name in ("popular", "kind", "buried")}
        usual |= {name: [0] * size for name in ("shown", "pinned")}
        usual |= {"history": [], "recent": [False] * len(user.get("history", []))}
        rows.append({**usual, **{name: [None] * size for name in others}, **user})
    return [pd.Series([np.array(row[name], dtype=object) for row in rows]) for name in (*FIRST, *others)]


def test_slots_of_a_frame_are_rows_of_places(folder: Path) -> None:
    settings = load([], ["publish.email_slots=2", "publish.max_per={brand: 1}"]).publish
    titles = ["pot", "lamp", "tent"]
    brands = ["Acme", "Acme", "Zeta"]
    rows = chosen(
        ItemTable(folder),
        columns(
            {"ids": ["a", "b", "c"], "titles": titles, "scores": [3.0, 2.0, 1.0], "brand": brands},
            {"ids": ["a", "b"], "titles": ["pot", "lamp"], "scores": [3.0, 2.0]},
            {"ids": ["c"], "titles": ["tent"], "scores": [3.0], "shown": [2]},
            others=("brand",),
        ),
        settings,
        {},
    )
    assert list(rows) == CHOICE.names
    assert [list(places) for places in rows["places"]] == [[0, 2], [0, 1], [0]]
    assert rows["over_cap"].tolist() == [False, False, False], "items without a brand are no group"
    assert rows["shown"].tolist() == [0, 0, 1]


def test_a_score_that_a_reranker_put_behind_a_lower_one_counts_as_the_lower_one(folder: Path) -> None:
    settings = PublishConfig(email_slots=2, diversity=0.0, max_per={})
    user = {"ids": ["x", "y", "z"], "titles": ["pot", "lamp", "tent"], "scores": [1.0, 9.0, 2.0]}
    rows = chosen(ItemTable(folder), columns(user), settings, {})
    assert rows["places"][0].tolist() == [0, 1]


def test_a_pinned_item_without_a_score_has_its_slot_and_a_boosted_one_its_share(folder: Path) -> None:
    settings = PublishConfig(email_slots=3, diversity=0.0, max_per={})
    user = {
        "ids": ["t", "u", "v", "w", "x"],
        "titles": ["pot", "lamp", "tent", "rope", "flask"],
        "scores": [4.0, 3.0, 2.0, 1.0, None],
        "pinned": [0, 0, 0, 0, 1],
        "summer": [False, False, False, True, False],
    }
    rows = chosen(ItemTable(folder), columns(user, others=("summer",)), settings, {"summer": 1})
    assert rows["places"][0].tolist() == [4, 0, 3]


def test_a_pinned_item_that_a_list_lacks_has_a_reason_as_others_have(folder: Path) -> None:
    settings = PublishConfig(email_slots=3, diversity=0.0, max_per={})
    lacking = {"titles": ["pot", "lamp"], "scores": [1.0, None], "pinned": [0, 1]}
    rows = chosen(
        ItemTable(folder),
        columns(
            {**lacking, "ids": ["c", "a"], "history": ["b"]},
            {**lacking, "ids": ["c", "b"], "history": ["b"]},
            {**lacking, "ids": ["b", "a"], "popular": [True, False]},
            {**lacking, "ids": ["b", "x"], "popular": [True, False]},
        ),
        settings,
        {},
    )
    assert [places.tolist() for places in rows["places"]] == [[1, 0]] * 4
    pins = [reasons[1] for reasons in rows["reason"]]
    assert pins == ["similar to", "bought before", "popular", "new in the shop"]
    assert [ids[1] for ids in rows["because_item_id"]] == ["b", "b", None, None]


def test_every_item_of_a_list_has_a_reason_and_titles_stay_as_they_are(folder: Path) -> None:
    settings = PublishConfig(max_per={})
    lists = {"ids": ["a", "c", "b"], "titles": ["pot", "tent", "lamp"], "scores": [3.0, 2.0, 1.0]}
    rows = chosen(
        ItemTable(folder),
        columns(
            {**lists, "history": ["b"]},
            {**lists, "popular": [True] * 3},
            {"ids": ["b"], "titles": ["lamp"], "scores": [1.0], "history": ["gone", "b", "a"]},
            {"ids": [], "titles": [], "scores": []},
        ),
        settings,
        {},
    )
    assert rows["reason"].tolist() == [
        ["similar to", "new in the shop", "bought before"],
        ["popular", "new in the shop", "popular"],
        ["bought before"],
        [],
    ]
    assert rows["because_item_id"].tolist() == [["b", None, "b"], [None] * 3, ["b"], []]
    assert rows["because_title"].tolist()[0] == ["{reason} %s", None, "{reason} %s"]


def test_items_like_bought_ones_come_last_by_kind_as_near_duplicates_and_as_the_same_item(
    folder: Path,
) -> None:
    settings = PublishConfig(email_slots=3, diversity=0.0, duplicate_above=0.7, max_per={})
    lists = {"ids": ["a", "b", "c"], "titles": ["pot", "lamp", "tent"], "scores": [3.0, 2.0, 1.0]}
    rows = chosen(
        ItemTable(folder),
        columns(
            {**lists, "history": ["b"], "recent": [False]},
            {**lists, "history": ["b"], "recent": [True]},
            {**lists, "kind": [True, False, False]},
            {**lists, "history": ["c"], "recent": [True], "scores": [1.0, 1.0, 1.0]},
        ),
        settings,
        {},
    )
    assert rows["bought"].tolist() == [
        [False, False, False],
        [True, True, False],
        [True, False, False],
        [False, False, True],
    ]
    firsts = [places[0] for places in rows["places"]]
    assert firsts == [0, 2, 1, 0]


def test_workers_that_choose_slots_load_no_torch() -> None:
    code = "import allmrec.night.slot_choice, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

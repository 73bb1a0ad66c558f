"""What workers read of a shipped bundle, and slots of frames as Spark sends them. No JVM, no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from allmrec.config import PublishConfig, load
from allmrec.night.slot_choice import CHOICE, as_rows, chosen
from allmrec.night.text_table import TextTable, mapped

VECTORS = np.array([[0, 0], [3, 4], [0, 2], [0, 0]], dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The two files of a bundle that are read, with the items a, b and c."""
    other = {"known": np.ones(4, dtype=bool), "zzz": np.arange(7, dtype=np.int64)}
    save_file({"text_embeddings": VECTORS, **other}, tmp_path / "items.safetensors")
    pd.DataFrame({"item_idx": [1, 2, 3], "item_id": ["a", "b", "c"]}).to_parquet(tmp_path / "items.parquet")
    return tmp_path


def test_a_tensor_is_the_one_that_the_library_of_safetensors_reads(folder: Path) -> None:
    path = folder / "items.safetensors"
    np.testing.assert_array_equal(mapped(path, "text_embeddings"), load_file(path)["text_embeddings"])
    with pytest.raises(KeyError):
        mapped(path, "soft_items")


def test_vectors_have_length_one_and_unknown_items_have_none(folder: Path) -> None:
    found = TextTable(folder).vectors(np.array(["b", "x", "a", "c"], dtype=object))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.0, 1.0], [0.0, 0.0], [0.6, 0.8], [0.0, 0.0]])


def columns(*rows: tuple[list[str], list[str], list[float], list[int], list[str | None]]) -> list[pd.Series]:
    """The arguments of the chooser: ids, titles, scores, shown and one cap of some users."""
    return [pd.Series([np.array(values, dtype=object) for values in one]) for one in zip(*rows, strict=True)]


def test_slots_of_a_frame_are_rows_of_places(folder: Path) -> None:
    settings = load([], ["publish.email_slots=2", "publish.max_per={brand: 1}"]).publish
    found = chosen(
        TextTable(folder),
        columns(
            (["a", "b", "c"], ["pot", "lamp", "tent"], [3.0, 2.0, 1.0], [0, 0, 0], ["Acme", "Acme", "Zeta"]),
            (["a", "b"], ["pot", "lamp"], [3.0, 2.0], [0, 0], [None, None]),
            (["c"], ["tent"], [3.0], [2], [None]),
        ),
        settings,
    )
    rows = as_rows(found)
    assert list(rows) == CHOICE.names
    assert [list(places) for places in rows["places"]] == [[0, 2], [0, 1], [0]]
    assert rows["over_cap"].tolist() == [False, False, False], "items without a brand are no group"
    assert rows["shown"].tolist() == [0, 0, 1]


def test_a_score_that_a_reranker_put_behind_a_lower_one_counts_as_the_lower_one(folder: Path) -> None:
    settings = PublishConfig(email_slots=2, diversity=0.0, max_per={})
    given = columns((["x", "y", "z"], ["pot", "lamp", "tent"], [1.0, 9.0, 2.0], [0, 0, 0], []))[:4]
    assert as_rows(chosen(TextTable(folder), given, settings))["places"][0].tolist() == [0, 1]


def test_workers_that_choose_slots_load_no_torch() -> None:
    code = "import allmrec.night.slot_choice, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

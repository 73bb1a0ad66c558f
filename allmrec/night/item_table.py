"""The items of a shipped bundle with their vectors, read in Spark's workers without torch."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from allmrec.runtime.shipping import shipped_folder

CF_ITEMS = "item_embedding.weight"
"""The tensor of `cf.safetensors` with the item table E of a `TableModel`."""


class ItemTable:
    """Titles, text vectors Q and CF vectors E of a bundle's items.

    Raises KeyError where items.safetensors has no text_embeddings or no known.
    """

    def __init__(self, folder: Path) -> None:
        items = pd.read_parquet(folder / "items.parquet", columns=["item_id", "title", "num_interactions"])
        self._ids = pd.Index(items["item_id"])
        self._titles = np.append(items["title"].to_numpy(dtype=object), np.array([None], dtype=object))
        self._is_new = np.append(items["num_interactions"].to_numpy() == 0, True)
        self._text_vectors = mapped(folder / "items.safetensors", "text_embeddings")
        self._known = mapped(folder / "items.safetensors", "known")
        self._cf_vectors = _cf_items(folder / "cf.safetensors")

    def text_vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return Q of items [N], each of length 1: [N, S] float32.

        Zeros where the bundle has no such item, or no text of it.
        """
        places_N = self._places(ids)
        return _unit_rows(self._text_vectors, places_N + 1, places_N >= 0)

    def cf_vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return E of items [N], each of length 1: [N, D] float32.

        Zeros where the CF model does not know the item, or has no table of items.
        """
        places_N = self._places(ids)
        known_N = self._known[places_N + 1] & (places_N >= 0) & (places_N + 1 < len(self._cf_vectors))
        return _unit_rows(self._cf_vectors, np.where(known_N, places_N + 1, 0), known_N)

    def titles(self, ids: np.ndarray) -> np.ndarray:
        """Return the titles of items [N], [N] object; None where the bundle has no such item."""
        return self._titles[self._places(ids)]

    def is_new(self, ids: np.ndarray) -> np.ndarray:
        """Return which items [N] have no interaction in training, [N] bool."""
        return self._is_new[self._places(ids)]

    def _places(self, ids: np.ndarray) -> np.ndarray:
        """Return item_idx − 1 of items [N], [N] int64; −1 where the bundle has no such item."""
        return self._ids.get_indexer(ids)


@lru_cache(maxsize=1)
def item_table(bundle_id: str) -> ItemTable:
    """Return this worker's table of a bundle that was shipped."""
    return ItemTable(shipped_folder(bundle_id))


def mapped(path: Path, name: str) -> np.ndarray:
    """Return a tensor of a safetensors file (float32 or bool), read when and where it is needed.

    The workers of a machine share its pages. Raises KeyError where the file has no such tensor, or a tensor
    of another type.
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        tensor = json.loads(file.read(header_bytes))[name]
    begin = 8 + header_bytes + tensor["data_offsets"][0]
    dtype = {"F32": "<f4", "BOOL": "?"}[tensor["dtype"]]
    return np.memmap(path, dtype=dtype, mode="r", offset=begin, shape=tuple(tensor["shape"]))


def _cf_items(path: Path) -> np.ndarray:
    """Return E of the CF model, [I+1, D] float32; [1, 1] zeros where the model has no table of items."""
    try:
        return mapped(path, CF_ITEMS)
    except KeyError:
        return np.zeros((1, 1), dtype=np.float32)


def _unit_rows(vectors: np.ndarray, places_N: np.ndarray, present_N: np.ndarray) -> np.ndarray:
    """Return the rows at places at length 1, [N, S] float32; zeros where not present."""
    vectors_NS = vectors[places_N] * present_N[:, None].astype(np.float32)
    lengths_N = np.linalg.norm(vectors_NS, axis=1, keepdims=True)
    return vectors_NS / np.where(lengths_N > 0, lengths_N, 1.0)

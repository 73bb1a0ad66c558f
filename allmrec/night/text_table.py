"""The texts' vectors of a shipped bundle, read in Spark's workers without torch."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from allmrec.runtime.shipping import shipped_folder


class TextTable:
    """The vectors Q of a bundle's items.

    Raises KeyError where items.safetensors has no text_embeddings.
    """

    def __init__(self, folder: Path) -> None:
        self._items = pd.Index(pd.read_parquet(folder / "items.parquet", columns=["item_id"])["item_id"])
        self._vectors = mapped(folder / "items.safetensors", "text_embeddings")

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the vectors of items [N], each of length 1: [N, S] float32.

        Zeros where the bundle has no such item, or no text of it.
        """
        places_N = self._items.get_indexer(ids)
        vectors_NS = self._vectors[places_N + 1] * (places_N >= 0)[:, None].astype(np.float32)
        lengths_N = np.linalg.norm(vectors_NS, axis=1, keepdims=True)
        return vectors_NS / np.where(lengths_N > 0, lengths_N, 1.0)


@lru_cache(maxsize=1)
def text_table(bundle_id: str) -> TextTable:
    """Return this worker's table of a bundle that was shipped."""
    return TextTable(shipped_folder(bundle_id))


def mapped(path: Path, name: str) -> np.ndarray:
    """Return a float32 tensor of a safetensors file, read when and where it is needed.

    The workers of a machine share its pages. Raises KeyError where the file has no such tensor.
    """
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        tensor = json.loads(file.read(header_bytes))[name]
    begin = 8 + header_bytes + tensor["data_offsets"][0]
    return np.memmap(path, dtype="<f4", mode="r", offset=begin, shape=tuple(tensor["shape"]))

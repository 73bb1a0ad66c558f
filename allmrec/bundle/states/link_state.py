"""The state of the links between items."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from allmrec.bundle.contents import FLOATS, INTEGERS, check_links, check_vocabulary, reading
from allmrec.bundle.states.state import ITEM_TENSORS, NewItems, State, Stored
from allmrec.models.links import Links, Vocabulary
from allmrec.parts import LINKS

WORDS = "words.json"


@dataclass(frozen=True)
class LinkState(State):
    """The links between items, which training counted."""

    name = "links"
    files = (WORDS,)

    links: Links

    def item_tensors(self) -> dict[str, Tensor]:
        """Return offsets [I+2], columns [N] int64 and values [N] float32 of each sparse matrix."""
        tensors: dict[str, Tensor] = {}
        for name in LINKS:
            matrix = getattr(self.links, name)
            tensors[f"links_{name}_offsets"] = torch.from_numpy(matrix.indptr.astype(np.int64))
            tensors[f"links_{name}_columns"] = torch.from_numpy(matrix.indices.astype(np.int64))
            tensors[f"links_{name}_values"] = torch.from_numpy(matrix.data)
        return tensors

    def save(self, folder: Path) -> None:
        """Write the vocabulary; the matrices are in `ITEM_TENSORS`."""
        vocabulary = self.links.vocabulary
        content = {"num_items": vocabulary.num_items, "counts": dict(vocabulary.counts)}
        (folder / WORDS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, stored: Stored) -> LinkState | None:
        """Return the state of a stored bundle; None: the bundle is older than the state.

        Raises BundleError where a file has wrong content.
        """
        if not (stored.folder / WORDS).exists():
            return None
        with reading(stored.folder, WORDS):
            content = json.loads((stored.folder / WORDS).read_text(encoding="utf-8"))
            vocabulary = Vocabulary(content["num_items"], content["counts"])
            check_vocabulary(vocabulary.num_items, vocabulary.counts)
        num_words = len(vocabulary.counts)
        widths = {"words": num_words, "brand": num_words, "together": stored.num_rows}
        matrices = {name: _matrix(stored, name, width) for name, width in widths.items()}
        return cls(Links(vocabulary, **matrices))

    def extended(self, new: NewItems) -> LinkState:
        """Return the state with the child's titles; new items have no link by users."""
        together = self.links.together.copy()
        together.resize((new.num_rows, new.num_rows))
        return _of_titles(new, self.links.vocabulary, together)

    def transferred(self, new: NewItems) -> LinkState:
        """Return the links of the other shop's titles; its items have no link by users."""
        nobody = sparse.csr_matrix((new.num_rows, new.num_rows), dtype=np.float32)
        return _of_titles(new, Vocabulary.of(new.items["title"]), nobody)


def _of_titles(new: NewItems, vocabulary: Vocabulary, together: sparse.csr_matrix) -> LinkState:
    """Return the state of the items of `new`."""
    titles = new.items["title"].tolist()
    return LinkState(Links.of(vocabulary.with_words_of(titles), titles, together))


def _matrix(stored: Stored, name: str, width: int) -> sparse.csr_matrix:
    """Return a stored sparse matrix, [I+1, width] float32."""
    offsets = stored.tensor(f"links_{name}_offsets", INTEGERS, stored.num_rows + 1)
    columns = stored.tensor(f"links_{name}_columns", INTEGERS, -1)
    values = stored.tensor(f"links_{name}_values", FLOATS, -1)
    with reading(stored.folder, ITEM_TENSORS):
        check_links(name, offsets, columns, values, width)
    parts = (values.numpy(), columns.numpy(), offsets.numpy())
    return sparse.csr_matrix(parts, shape=(stored.num_rows, width))

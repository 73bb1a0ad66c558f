"""Links between items: title words in common, the same brand, users in common.

A signal of a user and an item is the sum of the links between the item and the newest `HISTORY` items of the
user's history. The newest item counts 1, each older one `DECAY` times as much as the next.

    words     product of the titles' tf-idf rows, at length 1; words of more than `MAX_SHARE` of the items
              count only for the length
    brand     1 where the titles have the same first word
    together  c(i, j) / √((n_i + SHRINK) (n_j + SHRINK)): c counts the pairs of i and j in the sequences, at
              most `WINDOW` places apart, n the occurrences; the `NEIGHBOURS` largest of each item

Links of words and brand depend on the two titles and on the training's counts of words, so that new items
leave the links of other items unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from allmrec.parts import LINKS

HISTORY = 10
DECAY = 0.8
MAX_SHARE = 0.02
MIN_COMMON = 50
"""Words of at most so many items always count, however small the catalogue is."""
WINDOW = 5
SHRINK = 10.0
NEIGHBOURS = 200
_WORD = re.compile(r"[^\W_]+")


def words_of(title: str) -> list[str]:
    """Return the words of a title in lower case, in their order."""
    return _WORD.findall(title.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words of titles, V in all, and the training's counts."""

    num_items: int
    """Items of the training."""
    counts: Mapping[str, int]
    """Word → items of the training with it, in the order of the columns; 0 for words of later items."""

    @classmethod
    def of(cls, titles: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of the training's titles."""
        counts: dict[str, int] = {}
        num_items = 0
        for title in titles:
            num_items += 1
            for word in dict.fromkeys(words_of(title)):
                counts[word] = counts.get(word, 0) + 1
        return cls(num_items, counts)

    def with_words_of(self, titles: Iterable[str]) -> Vocabulary:
        """Return the vocabulary with the new words of later titles behind its own."""
        new = {word: 0 for title in titles for word in words_of(title) if word not in self.counts}
        return replace(self, counts={**self.counts, **new})

    def word_rows(self, titles: Sequence[str]) -> sparse.csr_matrix:
        """Return the tf-idf rows of titles, [N, V] float32."""
        counts_V = np.fromiter(self.counts.values(), dtype=np.float64, count=len(self.counts))
        idf_V = np.log((1 + self.num_items) / (1 + counts_V))
        columns = [sorted({self._columns[word] for word in words_of(title)}) for title in titles]
        row_T = np.repeat(np.arange(len(titles)), [len(row) for row in columns])
        column_T = np.array([column for row in columns for column in row], dtype=np.int64)
        squares_N = np.bincount(row_T, weights=idf_V[column_T] ** 2, minlength=len(titles))
        value_T = idf_V[column_T] / np.sqrt(np.maximum(squares_N[row_T], 1e-12))
        counts_T = (counts_V <= max(MAX_SHARE * self.num_items, MIN_COMMON))[column_T]
        return _matrix(value_T[counts_T], row_T[counts_T], column_T[counts_T], len(titles), len(counts_V))

    def brand_rows(self, titles: Sequence[str]) -> sparse.csr_matrix:
        """Return a 1 at each title's first word, [N, V] float32; zeros for titles without words."""
        first = [words_of(title)[:1] for title in titles]
        row_T = np.array([row for row, words in enumerate(first) if words], dtype=np.int64)
        column_T = np.array([self._columns[words[0]] for words in first if words], dtype=np.int64)
        return _matrix(np.ones(len(row_T)), row_T, column_T, len(titles), len(self.counts))

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Word → column."""
        return {word: column for column, word in enumerate(self.counts)}


@dataclass(frozen=True)
class Links:
    """The links between the items of a bundle; row and column 0 are padding."""

    vocabulary: Vocabulary
    words: sparse.csr_matrix
    """Tf-idf rows of the titles, [I+1, V] float32."""
    brand: sparse.csr_matrix
    """A 1 at the title's first word, [I+1, V] float32."""
    together: sparse.csr_matrix
    """Row of an item: its links to items that users had beside it, [I+1, I+1] float32."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, titles: Sequence[str], together: sparse.csr_matrix) -> Links:
        """Return the links of items 1..I with these titles."""
        with_padding = ["", *titles]
        return cls(
            vocabulary, vocabulary.word_rows(with_padding), vocabulary.brand_rows(with_padding), together
        )

    @property
    def num_rows(self) -> int:
        """I + 1."""
        return int(self.together.shape[0])

    def signal(self, name: str, recent_BI: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return a signal, one of `LINKS`, for users and items, [B, I+1] float32 with sorted columns.

        `recent_BI` is the result of `recent`. The row of a user depends on no other user.
        """
        if name not in LINKS:
            raise KeyError(f"link {name}, expected one of {', '.join(LINKS)}")
        if name == "together":
            signal_BI = recent_BI @ self.together
        else:
            rows_IV = {"words": self.words, "brand": self.brand}[name]
            signal_BI = (recent_BI @ rows_IV) @ self._transposed[name]
        signal_BI.sort_indices()
        return signal_BI

    def recent(self, histories_BH: np.ndarray) -> sparse.csr_matrix:
        """Return the weights of the newest items of histories, [B, I+1] float32.

        `histories_BH` [B, HISTORY] int64 are item_idx, oldest first, left-padded with 0. A repeated item has
        the sum of its weights.
        """
        row_N, place_N = np.nonzero(histories_BH)
        weight_N = DECAY ** (histories_BH.shape[1] - 1.0 - place_N)
        return _matrix(weight_N, row_N, histories_BH[row_N, place_N], len(histories_BH), self.num_rows)

    @cached_property
    def _transposed(self) -> dict[str, sparse.csr_matrix]:
        """Words and brand → the same matrix with a row per word, [V, I+1]."""
        return {"words": self.words.T.tocsr(), "brand": self.brand.T.tocsr()}


def together(pairs_II: sparse.csr_matrix, occurrences_I: np.ndarray) -> sparse.csr_matrix:
    """Return the links of items that users had beside each other, [I+1, I+1] float32.

    `pairs_II` [I+1, I+1] counts the pairs c(i, j), symmetric; its diagonal is left out. `occurrences_I`
    [I+1] are n.
    """
    scale_I = sparse.diags(1.0 / np.sqrt(occurrences_I + SHRINK))
    links_II = (scale_I @ pairs_II @ scale_I).tocoo()
    # Largest first in every row, equal ones by item_idx.
    order = np.lexsort((links_II.col, -links_II.data, links_II.row))
    order = order[links_II.row[order] != links_II.col[order]]
    row_N = links_II.row[order]
    place_N = np.arange(len(row_N)) - np.searchsorted(row_N, row_N)
    kept = order[place_N < NEIGHBOURS]
    size = len(occurrences_I)
    return _matrix(links_II.data[kept], links_II.row[kept], links_II.col[kept], size, size)


def _matrix(
    values_N: np.ndarray, row_N: np.ndarray, column_N: np.ndarray, num_rows: int, num_columns: int
) -> sparse.csr_matrix:
    """Return a sparse matrix [num_rows, num_columns] float32 with sorted columns; values of a cell add up."""
    entries = (values_N.astype(np.float32), (row_N, column_N))
    matrix = sparse.csr_matrix(entries, shape=(num_rows, num_columns))
    matrix.sum_duplicates()
    return matrix

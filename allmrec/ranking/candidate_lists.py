"""The central data type: the candidates of some users, and what is known of each.

Retrieval makes candidate lists, scoring adds parts to them, and the blend's fit, the rankers, the served
order and the evaluation read them. They are made from and into pandas at Spark's edge only (`from_frame`,
`to_frame`, `allmrec.ranking.served.ranked_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from allmrec.parts import PARTS


@dataclass(frozen=True)
class CandidateLists:
    """The candidates of B users, at most C each.

    Row b of every array belongs to user b; a list fills its row from the left.

    | field | shape and type | what it is; missing values |
    |---|---|---|
    | users | [B] object | user ids |
    | histories | B sequences of item ids | the user's history, oldest first; empty where there is none |
    | ids | [B, C] object | candidate item ids; None beyond a user's candidates |
    | counts | [B] int64 | the number of the user's candidates, 0 to C |
    | sources | [B, C] object | the source that found it, such as cf; None beyond a user's candidates |
    | use_llm | [B] bool | whether the LLM is asked about this user |
    | llm_failures | [B] object | why the LLM could not score them; None: it could, or was not asked |
    | parts | name → [B, C] float64 | what is known; NaN: not known, and beyond a user's candidates |

    The parts that retrieval and scoring know:

    | part | what it is |
    |---|---|
    | cf | x_u · E_i; not known where the CF model has not seen the item, or nothing of the history |
    | text | cosine of the item's text with the history's |
    | popularity | interactions in training |
    | alignment | cosine of the projected user and item, O_u and O_i |
    | read | 1 where the LLM read the candidate, else 0 |
    | llm_logprob | log-probability of the title, in nats, before the prior is subtracted |
    | llm | the same after it: what the LLM's choice is made by |
    """

    users: np.ndarray
    histories: tuple[Sequence[str], ...]
    ids: np.ndarray
    counts: np.ndarray
    sources: np.ndarray
    use_llm: np.ndarray
    llm_failures: np.ndarray
    parts: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        sources: Sequence[Sequence[str]] | None = None,
    ) -> CandidateLists:
        """Return lists without parts and without the LLM, from a history and a list of ids per user.

        Raises ValueError where the sequences differ in length.
        """
        if not len(users) == len(histories) == len(candidates):
            raise ValueError(
                f"{len(users)} users, {len(histories)} histories, {len(candidates)} lists: "
                "expected as many of each"
            )
        counts = np.array([len(ids) for ids in candidates], dtype=np.int64)
        present = _present(counts)
        nobody = np.full(present.shape, None, dtype=object)
        return cls(
            users=_objects(users),
            histories=tuple(histories),
            ids=_placed(nobody, present, chain.from_iterable(candidates)),
            counts=counts,
            sources=nobody if sources is None else _placed(nobody, present, chain.from_iterable(sources)),
            use_llm=np.zeros(len(counts), dtype=bool),
            llm_failures=np.full(len(counts), None, dtype=object),
            parts=MappingProxyType({}),
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> CandidateLists:
        """Return the lists of a frame with a row per user.

        Columns: user_id, history, item_ids, sources, cf_scores, text_scores and use_llm.
        `item_ids`, `sources` and the scores are the columns of the table `candidates`: sequences of equal
        length; a score that is null or not finite is missing.
        """
        lists = cls.of(
            frame["user_id"].tolist(),
            frame["history"].tolist(),
            frame["item_ids"].tolist(),
            frame["sources"].tolist(),
        )
        parts = {
            part: lists.spread(
                np.array(
                    [np.nan if score is None else score for score in chain.from_iterable(frame[column])],
                    dtype=np.float64,
                )
            )
            for part, column in _columns_of_parts().items()
        }
        return replace(lists.with_parts(parts), use_llm=frame["use_llm"].to_numpy(dtype=bool))

    def to_frame(self) -> pd.DataFrame:
        """Return a row per user with the columns of the table `candidates`.

        These are user_id, item_ids, cf_scores, text_scores and sources.
        All but user_id hold lists as long as the user has candidates; a missing score is None.
        """
        columns = {"user_id": self.users, "item_ids": self.listed(self.ids)}
        columns |= {column: self.listed(self.part(part)) for part, column in _columns_of_parts().items()}
        return pd.DataFrame({**columns, "sources": self.listed(self.sources)})

    def __len__(self) -> int:
        """B, the number of users."""
        return len(self.users)

    @cached_property
    def present(self) -> np.ndarray:
        """[B, C] bool: whether the user has a candidate there."""
        return _present(self.counts)

    def part(self, name: str) -> np.ndarray:
        """Return the part [B, C] float64; raises KeyError for a part that was never filled.

        Lists without users have every part.
        """
        if name not in self.parts and len(self):
            raise KeyError(f"part {name}: never filled, expected one of {', '.join(self.parts) or 'none'}")
        return self.parts.get(name, np.zeros(self.ids.shape))

    def with_parts(self, parts: Mapping[str, np.ndarray]) -> CandidateLists:
        """Return the lists with further parts, each [B, C] float64.

        Infinite values and those beyond the candidates become NaN.

        Raises ValueError where a part has another shape.
        """
        for name, values_BC in parts.items():
            if values_BC.shape != self.ids.shape:
                raise ValueError(f"part {name}: shape {values_BC.shape}, expected {self.ids.shape}")
        known = {
            name: np.where(self.present & np.isfinite(values), values, np.nan)
            for name, values in parts.items()
        }
        return replace(self, parts=MappingProxyType({**self.parts, **known}))

    def asking_llm(self, use_llm: bool) -> CandidateLists:
        """Return the lists with `use_llm` the same for every user."""
        return replace(self, use_llm=np.full(len(self), use_llm))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return a value per candidate as [B, C] float64, NaN beyond the candidates.

        `values` [sum of counts] float holds one list after another.
        """
        matrix = np.full(self.ids.shape, np.nan)
        matrix[self.present] = values
        return matrix

    def listed(self, values_BC: np.ndarray) -> list[list[Any]]:
        """Return a matrix [B, C] as one list per user, without what lies beyond the candidates.

        NaN becomes None.
        """
        values = values_BC[self.present].astype(object)
        if values_BC.dtype.kind == "f":
            values[np.isnan(values_BC[self.present])] = None
        return [row.tolist() for row in np.split(values, np.cumsum(self.counts)[:-1])] if len(self) else []

    def columns_of(self, items: Sequence[str]) -> np.ndarray:
        """Return the column of one item per user, [B] int64.

        −1 where it is not among the user's candidates.
        """
        matches = self.ids == _objects(items)[:, None]
        return (
            np.where(matches.any(axis=1), matches.argmax(axis=1), -1)
            if self.ids.size
            else np.full(len(self), -1)
        )

    def take(self, rows: np.ndarray) -> CandidateLists:
        """Return the lists of some users ([b] int64 rows, or [B] bool); C becomes the longest of theirs."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
        width = int(self.counts[rows].max(initial=0))
        return CandidateLists(
            users=self.users[rows],
            histories=tuple(self.histories[row] for row in rows.tolist()),
            ids=self.ids[rows, :width],
            counts=self.counts[rows],
            sources=self.sources[rows, :width],
            use_llm=self.use_llm[rows],
            llm_failures=self.llm_failures[rows],
            parts=MappingProxyType({name: values[rows, :width] for name, values in self.parts.items()}),
        )

    @classmethod
    def concatenated(cls, pieces: Sequence[CandidateLists]) -> CandidateLists:
        """Return the lists of all pieces, which have the same parts, one after another.

        No pieces give no users.
        """
        if not pieces:
            return cls.of([], [], [])
        width = max(piece.ids.shape[1] for piece in pieces)
        return cls(
            users=np.concatenate([piece.users for piece in pieces]),
            histories=tuple(chain.from_iterable(piece.histories for piece in pieces)),
            ids=_stacked([piece.ids for piece in pieces], width, None),
            counts=np.concatenate([piece.counts for piece in pieces]),
            sources=_stacked([piece.sources for piece in pieces], width, None),
            use_llm=np.concatenate([piece.use_llm for piece in pieces]),
            llm_failures=np.concatenate([piece.llm_failures for piece in pieces]),
            parts=MappingProxyType(
                {
                    name: _stacked([piece.parts[name] for piece in pieces], width, np.nan)
                    for name in pieces[0].parts
                }
            ),
        )


def _columns_of_parts() -> dict[str, str]:
    """Return the parts in the table `candidates`, and their columns there."""
    return {name: part.candidate_column for name, part in PARTS.items() if part.candidate_column is not None}


def filled(values_BC: np.ndarray, present_BC: np.ndarray) -> np.ndarray:
    """Return the values [B, C] with missing ones 1 below the row's lowest, −inf beyond the candidates.

    A row without any value is 0.
    """
    lowest = np.where(np.isnan(values_BC), np.inf, values_BC).min(axis=1, keepdims=True, initial=np.inf)
    below = np.where(np.isfinite(lowest), lowest - 1.0, 0.0)
    return np.where(present_BC, np.where(np.isnan(values_BC), below, values_BC), -np.inf)


def _present(counts_B: np.ndarray) -> np.ndarray:
    """Return [B, C] bool: the first `counts` columns of every row, C the largest count."""
    return np.arange(counts_B.max(initial=0)) < counts_B[:, None]


def _objects(values: Sequence[str]) -> np.ndarray:
    """Return [B] object, whatever the values look like."""
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _placed(empty_BC: np.ndarray, present_BC: np.ndarray, values: Any) -> np.ndarray:
    """Return a copy of `empty_BC` with the values, one list after another, where the candidates are."""
    matrix = empty_BC.copy()
    matrix[present_BC] = _objects(list(values))
    return matrix


def _stacked(matrices: Sequence[np.ndarray], width: int, fill: object) -> np.ndarray:
    """Return matrices [b, c] one below another as [sum of b, width], filled to the right."""
    stacked = np.full((sum(map(len, matrices)), width), fill, dtype=matrices[0].dtype)
    start = 0
    for matrix in matrices:
        stacked[start : start + len(matrix), : matrix.shape[1]] = matrix
        start += len(matrix)
    return stacked

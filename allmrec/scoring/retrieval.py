"""Candidates out of the whole catalogue: CF top-N, a quota nearest by text for items with few interactions, popular items to fill up.

A users × items matrix never exists: products are taken a block of items at a time, and only the best N so far are kept (exact, no
index). Items that may not be recommended are left out before the cut, so nobody ends with fewer candidates than there are.
Pandas in, pandas out; everything is fixed by the input: equal scores are ordered by item_idx.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from allmrec.config import CandidatesConfig
from allmrec.errors import InputError
from allmrec.scoring.nearest import nearest

if TYPE_CHECKING:
    from allmrec.bundle import Bundle

TEXT_HISTORY = 10
"""Newest items of the history whose mean text a candidate is compared with."""

COLUMNS = ["user_id", "item_ids", "cf_scores", "text_scores", "sources"]


@dataclass(frozen=True)
class UserVectors:
    """What a chunk of B users is compared by."""

    cf_BD: torch.Tensor
    """x_u, float32; zeros without CF history."""
    has_cf_B: np.ndarray
    """Whether the history holds an item that the CF model knows."""
    text_BJ: torch.Tensor
    """Unit vector of the mean centred q over the newest items, float32; zeros without history."""
    has_text_B: np.ndarray
    """Whether the history holds an item of the bundle."""


class Retriever:
    """Finds candidates for users, and scores given ones in the same terms.

    Parameters
    ----------
    bundle: the model bundle; its CF item matrix and its q_i are each held once, as one contiguous float32 tensor.
    available_ids: ids that may be recommended tonight; None: all of the bundle. Ids unknown to the bundle are passed over.
    settings: the section `candidates`.
    """

    def __init__(
        self, bundle: Bundle, available_ids: Iterable[str] | None, settings: CandidatesConfig
    ) -> None:
        self.settings = settings
        self.max_history = bundle.config.sequences.max_history
        self.cf = bundle.rec.cf.eval()
        self.known = np.asarray(bundle.known, dtype=bool)
        self.item_ids = pd.Index(bundle.items["item_id"])
        with torch.no_grad():
            self.cf_items = self.cf.item_matrix().detach().float().contiguous()
            self.text_items, self.text_norms = centred_unit_rows(
                bundle.rec.joint()[1].detach().float().to(self.cf_items.device)
            )
        num_interactions = np.concatenate([[0], bundle.items["num_interactions"].to_numpy(dtype=np.int64)])
        available = np.ones(len(self.item_ids) + 1, dtype=bool)
        if available_ids is not None:
            available[1:] = self.item_ids.isin(list(available_ids))
        available[0] = False
        self.all_columns = np.flatnonzero(available)
        self.cf_columns = np.flatnonzero(available & self.known)
        self.rare_columns = np.flatnonzero(available & (num_interactions < settings.rare_below))
        self.popular = self.all_columns[np.argsort(-num_interactions[self.all_columns], kind="stable")]

    def retrieve(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Find up to `num_candidates` distinct items a user.

        `frame` has user_id, item_ids (the history, oldest first) and seen (lists of ids; None is an empty list). Returns a row a user,
        in the order given: user_id, item_ids, cf_scores (x_u·E_i; None where the CF model knows the item or the user not),
        text_scores (cosine; 0 without history), sources (cf, text or popular). Lists are empty where nothing is left to recommend.
        """
        size = self.settings.chunk_users
        pieces = [
            self._retrieve_chunk(frame.iloc[start : start + size]) for start in range(0, len(frame), size)
        ]
        return (
            pd.concat(pieces, ignore_index=True)
            if pieces
            else pd.DataFrame({name: [] for name in COLUMNS}, dtype=object)
        )

    def score(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Score given candidates: `frame` has user_id, item_ids (the history) and candidates; returns the columns of `retrieve`.

        A source is here what the candidate can be ordered by: cf, text, or popular without history.
        Raises InputError when a candidate is not in the bundle.
        """
        size = self.settings.chunk_users
        pieces = [self._score_chunk(frame.iloc[start : start + size]) for start in range(0, len(frame), size)]
        return (
            pd.concat(pieces, ignore_index=True)
            if pieces
            else pd.DataFrame({name: [] for name in COLUMNS}, dtype=object)
        )

    def _score_chunk(self, frame: pd.DataFrame) -> pd.DataFrame:
        users = self._users(frame["item_ids"])
        counts, ids = _flattened(frame["candidates"])
        items = self.item_ids.get_indexer(ids) + 1
        if (items == 0).any():
            raise InputError(
                f"candidate {ids[int(np.argmin(items))]!r} is not in the bundle, expected items of its catalogue"
            )
        rows = np.repeat(np.arange(len(frame)), counts)
        by_cf = users.has_cf_B[rows] & self.known[items]
        sources = np.where(by_cf, "cf", np.where(users.has_text_B[rows], "text", "popular"))
        return self._table(frame["user_id"], users, counts, rows, items, sources)

    def _retrieve_chunk(self, frame: pd.DataFrame) -> pd.DataFrame:
        settings, wanted = self.settings, self.settings.num_candidates
        users = self._users(frame["item_ids"])
        seen_rows, seen_items = (
            self._indexed(frame["seen"])
            if settings.exclude_seen
            else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        )
        seen = (seen_rows, seen_items)
        _, by_cf = nearest(users.cf_BD, self.cf_items, self.cf_columns, wanted, *seen, settings.block_items)
        _, by_text = nearest(
            users.text_BJ, self.text_items, self.rare_columns, wanted, *seen, settings.block_items
        )
        # A history of items that the CF model never saw says something all the same: the whole catalogue is compared with it by text.
        text_only = np.flatnonzero(users.has_text_B & ~users.has_cf_B)
        if len(text_only):
            theirs = np.isin(seen_rows, text_only)
            kept = (np.searchsorted(text_only, seen_rows[theirs]), seen_items[theirs])
            vectors = users.text_BJ[torch.from_numpy(text_only).to(users.text_BJ.device)]
            _, by_text[text_only] = nearest(
                vectors, self.text_items, self.all_columns, wanted, *kept, settings.block_items
            )
        starts = np.searchsorted(seen_rows, np.arange(len(frame) + 1))
        items: list[int] = []
        sources: list[str] = []
        counts = np.zeros(len(frame), dtype=np.int64)
        for row in range(len(frame)):
            has_cf = bool(users.has_cf_B[row])
            cf_list = by_cf[row].tolist() if has_cf else []
            text_list = by_text[row].tolist() if users.has_text_B[row] else []
            seen_here = seen_items[starts[row] : starts[row + 1]]
            chosen = self._merged(cf_list, text_list, seen_here, settings.text_quota if has_cf else wanted)
            items.extend(chosen)
            sources.extend(chosen.values())
            counts[row] = len(chosen)
        rows = np.repeat(np.arange(len(frame)), counts)
        return self._table(
            frame["user_id"],
            users,
            counts,
            rows,
            np.array(items, dtype=np.int64),
            np.array(sources, dtype=object),
        )

    def _merged(self, by_cf: list[int], by_text: list[int], seen: np.ndarray, quota: int) -> dict[int, str]:
        """Return item_idx → source: CF's best, the quota by text, then CF again where the quota was not used, then popular items."""
        wanted = self.settings.num_candidates
        chosen = {item: "cf" for item in by_cf[: wanted - quota] if item}
        num_text = min(wanted, len(chosen) + quota)
        for source, ranked, limit in (("text", by_text, num_text), ("cf", by_cf, wanted)):
            for item in ranked:
                if len(chosen) >= limit:
                    break
                if item:
                    chosen.setdefault(item, source)
        missing = wanted - len(chosen)
        if missing > 0:
            taken = set(seen.tolist()) | chosen.keys()
            # At most len(taken) of the first (missing + len(taken)) popular items are taken: further down nobody needs to look.
            free = [item for item in self.popular[: missing + len(taken)].tolist() if item not in taken]
            chosen.update((item, "popular") for item in free[:missing])
        return chosen

    @torch.no_grad()
    def _users(self, histories: pd.Series) -> UserVectors:
        rows, items = self._indexed(histories)
        number = len(histories)
        known = self.known[items]
        device = self.cf_items.device
        cf_history = torch.from_numpy(left_padded(rows[known], items[known], number, self.max_history)).to(
            device
        )
        has_cf = (cf_history > 0).any(dim=1)
        cf_BD = torch.zeros(number, self.cf_items.shape[1], device=device)
        if has_cf.any():
            cf_BD[has_cf] = self.cf.user_representation(cf_history[has_cf]).float()
        text_history = torch.from_numpy(left_padded(rows, items, number, TEXT_HISTORY)).to(device)
        # The sum has the mean's direction, which is all that a cosine reads.
        text_sum_BJ = (self.text_items[text_history] * self.text_norms[text_history].unsqueeze(2)).sum(dim=1)
        text_BJ = torch.nn.functional.normalize(text_sum_BJ, dim=1)
        return UserVectors(cf_BD, has_cf.cpu().numpy(), text_BJ, (text_history > 0).any(dim=1).cpu().numpy())

    def _indexed(self, lists: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, item_idx) of every id that the bundle has, rows ascending, the order inside a row kept."""
        counts, ids = _flattened(lists)
        items = self.item_ids.get_indexer(ids) + 1
        rows = np.repeat(np.arange(len(counts)), counts)
        return rows[items > 0], items[items > 0]

    def _table(
        self,
        user_ids: pd.Series,
        users: UserVectors,
        counts: np.ndarray,
        rows: np.ndarray,
        items: np.ndarray,
        sources: np.ndarray,
    ) -> pd.DataFrame:
        place, item = (torch.from_numpy(index).to(self.cf_items.device) for index in (rows, items))
        by_cf = users.has_cf_B[rows] & self.known[items]
        known_item = torch.from_numpy(np.where(by_cf, items, 0)).to(self.cf_items.device)
        cf_scores = (
            (users.cf_BD[place] * self.cf_items[known_item]).sum(dim=1).double().cpu().numpy().astype(object)
        )
        cf_scores[~by_cf] = None
        text_scores = (users.text_BJ[place] * self.text_items[item]).sum(dim=1).double().cpu().numpy()
        ids = self.item_ids.to_numpy(dtype=object)[items - 1] if len(items) else np.zeros(0, dtype=object)
        ends = np.cumsum(counts)[:-1]
        columns = {
            "item_ids": ids,
            "cf_scores": cf_scores,
            "text_scores": text_scores,
            "sources": np.asarray(sources, dtype=object),
        }
        split = {name: [part.tolist() for part in np.split(values, ends)] for name, values in columns.items()}
        return pd.DataFrame({"user_id": user_ids.to_numpy(), **split})


def left_padded(rows: np.ndarray, items: np.ndarray, num_rows: int, length: int) -> np.ndarray:
    """Return int64 [num_rows, length]: the last `length` items of each row, oldest first, zeros before them. `rows` ascends."""
    padded = np.zeros((num_rows, length), dtype=np.int64)
    ends = np.cumsum(np.bincount(rows, minlength=num_rows))
    from_end = ends[rows] - 1 - np.arange(len(rows))
    kept = from_end < length
    padded[rows[kept], length - 1 - from_end[kept]] = items[kept]
    return padded


def centred_unit_rows(text_IJ: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows 1..I of q minus their mean, at length 1, and their lengths before that [I+1]; row 0 (padding) is zeros."""
    centred = text_IJ.clone()
    centred[1:] -= text_IJ[1:].mean(dim=0, keepdim=True)
    centred[0] = 0.0
    norms = torch.linalg.vector_norm(centred, dim=1)
    return (centred / norms.clamp_min(1e-12).unsqueeze(1)).contiguous(), norms


def _flattened(lists: Iterable[Any]) -> tuple[np.ndarray, list[str]]:
    """Return the length of every list (None: 0) and all ids, one list after another."""
    present = [() if one is None else one for one in lists]
    return np.array([len(one) for one in present], dtype=np.int64), list(chain.from_iterable(present))

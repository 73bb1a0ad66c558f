"""Candidates out of the whole catalogue, found by the sources of `allmrec.scoring.sources`.

Everything is fixed by the input: equal scores are ordered by item_idx.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from allmrec.bundle import Bundle
from allmrec.config import CandidatesConfig
from allmrec.errors import InputError
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.scoring.assortment import NOTHING_SEEN, AskedUsers, Assortment, SeenPairs
from allmrec.scoring.sources import SOURCES
from allmrec.scoring.sources.places import filled_lists
from allmrec.scoring.user_vectors import UserEncoder, UserVectors, flattened

Ids = Sequence[str]
CHUNK_USERS = 2048
"""Users whose candidates are retrieved together."""


class Retriever:
    """Finds candidates for users, and scores given ones in the same terms (parts `cf` and `text`).

    Parameters
    ----------
    bundle: the model bundle.
    available: which items may be recommended tonight, [I+1] bool; None: all of the bundle.
    settings: the section `candidates`.
    """

    def __init__(self, bundle: Bundle, available: np.ndarray | None, settings: CandidatesConfig) -> None:
        self.bundle = bundle
        self.settings = settings
        self.encoder = UserEncoder(bundle)
        self.assortment = Assortment(bundle, self.encoder, available, settings)
        self.sources = [make(self.assortment) for make in SOURCES.values()]

    def retrieve(self, users: Ids, histories: Sequence[Ids], seen: Sequence[Ids | None]) -> CandidateLists:
        """Return up to `num_candidates` distinct items per user, none `seen` where `exclude_seen` says so.

        A history is oldest first. A list is empty where nothing is left to recommend. `sources` are the names
        of the sources that found the candidates.
        """
        return self._in_chunks(
            len(users), lambda rows: self._retrieve(users[rows], histories[rows], seen[rows])
        )

    def score(self, users: Ids, histories: Sequence[Ids], candidates: Sequence[Ids]) -> CandidateLists:
        """Return lists of given candidates.

        A source says here what a candidate can be ordered by: cf, text, or popular without history.

        Raises InputError where a candidate is not in the bundle.
        """
        return self._in_chunks(
            len(users), lambda rows: self._score(users[rows], histories[rows], candidates[rows])
        )

    @torch.no_grad()
    def score_all(self, users: Ids, histories: Sequence[Ids]) -> CandidateLists:
        """Return lists that hold the bundle's whole catalogue, column item_idx − 1, without sources.

        For evaluation: this is a users × items matrix, so give it few users at a time.
        """
        vectors = self.encoder.encode(histories)
        ids = self.encoder.item_ids.to_numpy(dtype=object)
        shape = (len(users), len(ids))
        cf_BI = (vectors.cf @ self.encoder.cf_items[1:].T).double().cpu().numpy()
        text_BI = (vectors.text @ self.encoder.text_items[1:].T).double().cpu().numpy()
        lists = replace(
            CandidateLists.of(users, histories, [()] * len(users)),
            ids=np.broadcast_to(ids, shape),
            counts=np.full(len(users), len(ids), dtype=np.int64),
            sources=np.broadcast_to(np.array(None, dtype=object), shape),
        )
        by_cf_BI = vectors.has_cf[:, None] & self.encoder.known[1:]
        return lists.with_parts({"cf": np.where(by_cf_BI, cf_BI, np.nan), "text": text_BI})

    def _in_chunks(self, num_users: int, work: Callable[[slice], CandidateLists]) -> CandidateLists:
        """Return what `work` gives for `CHUNK_USERS` users at a time."""
        starts = range(0, num_users, CHUNK_USERS)
        return CandidateLists.concatenated([work(slice(start, start + CHUNK_USERS)) for start in starts])

    def _score(self, users: Ids, histories: Sequence[Ids], candidates: Sequence[Ids]) -> CandidateLists:
        vectors = self.encoder.encode(histories)
        counts, ids = flattened(candidates)
        items = self.encoder.item_ids.get_indexer(ids) + 1
        if (items == 0).any():
            raise InputError(
                f"candidate {ids[int(np.argmin(items))]!r} is not in the bundle, "
                "expected items of its catalogue"
            )
        rows = np.repeat(np.arange(len(users)), counts)
        by_cf = vectors.has_cf[rows] & self.encoder.known[items]
        sources = np.where(by_cf, "cf", np.where(vectors.has_text[rows], "text", "popular"))
        splits = np.cumsum(counts)[:-1]
        lists = CandidateLists.of(
            users, histories, candidates, [part.tolist() for part in np.split(sources, splits)]
        )
        return self._with_parts(lists, vectors, rows, items)

    def _retrieve(self, users: Ids, histories: Sequence[Ids], seen: Sequence[Ids | None]) -> CandidateLists:
        vectors = self.encoder.encode(histories)
        left_out = SeenPairs(*self.encoder.indexed(seen)) if self.settings.exclude_seen else NOTHING_SEEN
        asked = AskedUsers(histories, vectors, left_out, self.assortment)
        chosen = filled_lists(self.sources, asked, self.settings.num_candidates)
        items = np.array([item for found in chosen for item in found], dtype=np.int64)
        rows = np.repeat(np.arange(len(users)), [len(found) for found in chosen])
        ids = self.encoder.item_ids
        candidates = [[ids[item - 1] for item in found] for found in chosen]
        lists = CandidateLists.of(users, histories, candidates, [list(found.values()) for found in chosen])
        return self._with_parts(lists, vectors, rows, items)

    def _with_parts(
        self, lists: CandidateLists, vectors: UserVectors, rows: np.ndarray, items: np.ndarray
    ) -> CandidateLists:
        """Return the lists with `cf` and `text`.

        `rows` and `items` [N] int64 are user and item_idx of every candidate.
        """
        device = self.encoder.cf_items.device
        row_N, item_N = (torch.from_numpy(index).to(device) for index in (rows, items))
        by_cf = vectors.has_cf[rows] & self.encoder.known[items]
        cf_item_N = torch.from_numpy(np.where(by_cf, items, 0)).to(device)
        cf = (vectors.cf[row_N] * self.encoder.cf_items[cf_item_N]).sum(dim=1).double().cpu().numpy()
        text = (vectors.text[row_N] * self.encoder.text_items[item_N]).sum(dim=1).double().cpu().numpy()
        values = {"cf": np.where(by_cf, cf, np.nan), "text": text}
        return lists.with_parts({name: lists.spread(value) for name, value in values.items()})

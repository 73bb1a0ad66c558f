"""Candidates out of the whole catalogue: by all signals together, some rare ones without the CF model.

Where that is not enough, popular items follow.

A users × items matrix never exists: products are taken a block of items at a time, and only the best so far
are kept (exact, no index). Items that may not be recommended are left out before the cut, so nobody ends with
fewer candidates than there are. Everything is fixed by the input: equal scores are ordered by item_idx.
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
from allmrec.scoring.nearest import Search, nearest
from allmrec.scoring.signals import UNFITTED, Signals
from allmrec.scoring.user_vectors import UserEncoder, UserVectors, flattened

Ids = Sequence[str]


class Retriever:
    """Finds candidates for users, and scores given ones in the same terms (parts `cf` and `text`).

    Parameters
    ----------
    bundle: the model bundle.
    available: which items may be recommended tonight, [I+1] bool; None: all of the bundle.
    settings: the section `candidates`.
    """

    def __init__(self, bundle: Bundle, available: np.ndarray | None, settings: CandidatesConfig) -> None:
        self.bundle, self.settings = bundle, settings
        self.encoder = UserEncoder(bundle)
        self.signals = Signals(self.encoder)
        self.weights = bundle.blends.get("retrieval", UNFITTED)
        self.num_interactions = np.concatenate(
            [[0], bundle.items["num_interactions"].to_numpy(dtype=np.int64)]
        )
        everything = np.ones(len(self.num_interactions), dtype=bool)
        available = everything if available is None else available.copy()
        available[0] = False
        self.all_items = np.flatnonzero(available)
        self.rare_items = np.flatnonzero(available & (self.num_interactions < settings.rare_below))
        self.popular_items = self.all_items[np.argsort(-self.num_interactions[self.all_items], kind="stable")]

    def retrieve(self, users: Ids, histories: Sequence[Ids], seen: Sequence[Ids | None]) -> CandidateLists:
        """Return up to `num_candidates` distinct items per user, none `seen` where `exclude_seen` says so.

        A history is oldest first. A list is empty where nothing is left to recommend. A source says how a
        candidate was found: cf, by all signals; text, without the CF model; or as a popular item.
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
        """Return what `work` gives for `chunk_users` users at a time."""
        size = self.settings.chunk_users
        return CandidateLists.concatenated(
            [work(slice(start, start + size)) for start in range(0, num_users, size)]
        )

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
        nothing = np.zeros(0, np.int64)
        seen_rows, seen_items = (
            self.encoder.indexed(seen) if self.settings.exclude_seen else (nothing, nothing)
        )
        best, rare = self._nearest_items(vectors, seen_rows, seen_items)
        first_seen = np.searchsorted(seen_rows, np.arange(len(users) + 1))
        chosen = [
            self._merged(
                "cf" if vectors.has_cf[row] else "text",
                best[row].tolist() if vectors.has_text[row] else [],
                rare[row].tolist() if vectors.has_cf[row] else [],
                seen_items[first_seen[row] : first_seen[row + 1]],
            )
            for row in range(len(users))
        ]
        items = np.array([item for found in chosen for item in found], dtype=np.int64)
        rows = np.repeat(np.arange(len(users)), [len(found) for found in chosen])
        ids = self.encoder.item_ids
        candidates = [[ids[item - 1] for item in found] for found in chosen]
        lists = CandidateLists.of(users, histories, candidates, [list(found.values()) for found in chosen])
        return self._with_parts(lists, vectors, rows, items)

    def _nearest_items(
        self, vectors: UserVectors, seen_rows: np.ndarray, seen_items: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best items of the catalogue by all signals, and of the rare ones without the CF model.

        Both are item_idx, best first, 0 for none: [B, num_candidates] int64, and more of the rare ones.
        `seen_rows` (ascending), `seen_items` [N]: pairs that are left out.
        """
        wanted, quota = self.settings.num_candidates, self.settings.text_quota
        pairs = self.signals.weighted(vectors, self.weights)
        # The CF model's come last: until them a sum is what the others say.
        with_cf = [pairs.pop(name) for name in ("cf", "unknown") if name in pairs]
        searches = [Search(len(pairs) + len(with_cf), self.all_items, wanted)]
        if quota:
            # The first `wanted` may all be among the best already.
            searches.append(Search(len(pairs), self.rare_items, quota + wanted))
        (_, best), *others = nearest(
            [*pairs.values(), *with_cf], searches, seen_rows, seen_items, self.settings.block_items
        )
        return best, others[0][1] if others else np.zeros((len(best), 0), dtype=np.int64)

    def _merged(self, source: str, best: list[int], rare: list[int], seen: np.ndarray) -> dict[int, str]:
        """Return item_idx → source: the best, the quota of rare ones, more of the best, popular ones.

        `best`, found by `source`, and `rare` are item_idx, best first, 0 where there are no more; `seen` [N]
        int64.
        """
        wanted = self.settings.num_candidates
        quota = min(self.settings.text_quota, wanted)
        chosen = {item: source for item in best[: wanted - quota] if item}
        num_with_rare = min(wanted, len(chosen) + quota)
        for found_by, ranking, limit in (("text", rare, num_with_rare), (source, best, wanted)):
            for item in ranking:
                if len(chosen) >= limit:
                    break
                if item:
                    chosen.setdefault(item, found_by)
        missing = wanted - len(chosen)
        if missing > 0:
            taken = set(seen.tolist()) | chosen.keys()
            # At most len(taken) of the first (missing + len(taken)) popular items are taken: further down
            # nobody needs to look.
            free = [item for item in self.popular_items[: missing + len(taken)].tolist() if item not in taken]
            chosen.update((item, "popular") for item in free[:missing])
        return chosen

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

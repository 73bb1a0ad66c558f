"""The scorer: candidate lists in, the same lists with the fillers' and the LLM's parts out.

No Spark.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from allmrec import seeds
from allmrec.bundle import Bundle
from allmrec.config import Config
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.generate import Leaf, decode_constrained, decode_free
from allmrec.llm.multi_item import Scored, score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.requests import RequestBuilder
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.ties import best_first, ranks
from allmrec.scoring.fillers import Users, filled_catalogue, filled_parts


class Scorer:
    """Scores candidates with one bundle. Without an LLM only the fillers' parts are computed.

    The prompt is the bundle's own (its titles, priors and blends belong to it); `config` says how to score.
    """

    def __init__(self, bundle: Bundle, llm: FrozenLLM | None, config: Config) -> None:
        self.bundle = bundle
        self.llm = llm
        self.config = config
        self.device = bundle.soft_items.device if llm is None else llm.device
        # Others compute with the bundle where it is: what goes to another device is a copy.
        is_there = self.device == bundle.soft_items.device
        self.rec = (bundle.rec if is_there else deepcopy(bundle.rec).to(self.device)).eval()
        is_trained = config.scoring.soft_items == "trained"
        self.soft_items = (
            bundle.soft_items.to(self.device) if is_trained else self.rec.text_soft_items().float()
        )
        prompt = bundle.config.prompt
        self.priors = bundle.priors if prompt.layout == "no_list" and prompt.subtract_prior else None
        self.requests: RequestBuilder | None = None
        if llm is not None:
            self.requests = RequestBuilder(PromptLayout.of(prompt, llm), bundle.titles, llm.max_positions)

    def score(self, lists: CandidateLists, read_all: bool = False) -> CandidateLists:
        """Return the lists with the parts that retrieval does not know, and `llm_failures`.

        They are those of `allmrec.scoring.fillers`, and `read`, `llm_logprob` and `llm`. The LLM is asked
        about the users with `use_llm`. It reads the best `scoring.llm_candidates` of the blend without it, or
        all of them (`read_all`). A failure is prompt_too_long, out_of_memory, non_finite_score or, in `free`
        mode, no_candidate. In the modes `generate` and `free` only decoded candidates have LLM parts. History
        items that the bundle lacks are passed over. Raises BundleError for a candidate it lacks.
        """
        histories = self._histories(lists)
        candidates = [self._indexed(items) for items in lists.listed(lists.ids)]
        users = self._users(histories)
        lists = lists.with_parts(filled_parts(users, candidates, lists))
        logprobs_BC = np.full(lists.ids.shape, np.nan)
        choices_BC = np.full(lists.ids.shape, np.nan)
        read_BC = np.where(lists.present, 0.0, np.nan)
        failures_B = np.full(len(lists), None, dtype=object)
        is_asked_B = lists.use_llm & (lists.counts > 0)
        asked = np.flatnonzero(is_asked_B).tolist() if self.llm is not None else []
        if asked:
            columns = self._columns_to_read(lists.take(np.array(asked)), read_all)
            read = [
                [candidates[row][column] for column in own.tolist()]
                for row, own in zip(asked, columns, strict=True)
            ]
            soft_users = self._soft_users_asked([histories[row] for row in asked], users.soft_BH[asked])
            scored = self._ask([(lists.users[row], histories[row]) for row in asked], read, soft_users)
            for number, row in enumerate(asked):
                read_BC[row, columns[number]] = 1.0
                failures_B[row] = scored.failures[number]
                logprobs = scored.logprobs[number]
                if logprobs is not None:
                    logprobs_BC[row, columns[number]] = logprobs
                    choices_BC[row, columns[number]] = logprobs - self._priors_of(read[number])
        lists = lists.with_parts({"read": read_BC, "llm_logprob": logprobs_BC, "llm": choices_BC})
        return replace(lists, llm_failures=failures_B)

    @torch.inference_mode()
    def _soft_users_asked(self, histories: list[list[int]], users_BH: Tensor) -> Tensor:
        """Return O_u of the users whom the LLM is asked about, [B, H] float32.

        On a CPU each is computed by itself: who shares a product changes its last bit, and in 16 bits that
        bit can become one of the LLM's. `users_BH` are the vectors that were computed together.
        """
        if self.device.type != "cpu":
            return users_BH
        alone = [self.rec.soft_users(self._padded([history]), self.soft_items) for history in histories]
        return torch.cat(alone).float()

    def _columns_to_read(self, lists: CandidateLists, read_all: bool) -> list[np.ndarray]:
        """Return the columns of the candidates that the LLM reads of every list, [≤ C] int64 each.

        They are all, or the best by the blend without the LLM. They stand in the order of equal scores: of
        equals decoding takes the first one, as ranking does.
        """
        wanted = None if read_all else self.config.scoring.llm_candidates
        blend = self.bundle.blends.get("without_llm")
        is_read_BC = lists.present
        if blend is not None and wanted is not None:
            is_read_BC = is_read_BC & (ranks(blend.scores(lists), lists, self.config.seed) <= wanted)
        order_BC = best_first(np.zeros(lists.ids.shape), lists, self.config.seed)
        return [order_C[is_read_C[order_C]] for order_C, is_read_C in zip(order_BC, is_read_BC, strict=True)]

    def _ask(
        self, users: Sequence[tuple[str, list[int]]], candidates: list[list[int]], users_BH: Tensor
    ) -> Scored:
        """Return what the LLM says of every user's candidates; `users` are (user_id, history)."""
        requests = [
            self._request(user_id, history, items)
            for (user_id, history), items in zip(users, candidates, strict=True)
        ]
        return self._llm_scores(requests, candidates, users_BH)

    def fill_catalogue(self, lists: CandidateLists) -> CandidateLists:
        """Return lists of the bundle's whole catalogue (`Retriever.score_all`) with the fillers' parts.

        The LLM reads no whole catalogue.
        """
        return lists.with_parts(filled_catalogue(self._users(self._histories(lists)), lists))

    @torch.inference_mode()
    def _users(self, histories: list[list[int]]) -> Users:
        """Return the users of these histories as the fillers take them."""
        soft_BH = self.soft_items[:0].float()
        if histories:
            soft_BH = self.rec.soft_users(self._padded(histories), self.soft_items).float()
        return Users(self.bundle, histories, soft_BH, self.soft_items)

    def _histories(self, lists: CandidateLists) -> list[list[int]]:
        """Return the item_idx of every history, those that the bundle lacks passed over."""
        index = self.bundle.index
        return [[index[item] for item in items if item in index] for items in lists.histories]

    def _indexed(self, items: Sequence[str]) -> list[int]:
        """Return the item_idx of candidates; raises BundleError for one that the bundle lacks."""
        missing = [item for item in items if item not in self.bundle.index]
        if missing:
            raise BundleError(
                f"bundle {self.bundle.bundle_id}: no item {missing[0]!r} among {len(self.bundle.index):,}, "
                "expected every candidate there"
            )
        return [self.bundle.index[item] for item in items]

    def _padded(self, histories: list[list[int]]) -> Tensor:
        """Return the newest item_idx of every history, [B, L] int64, left-padded with 0."""
        length = self.bundle.config.sequences.max_history
        padded_BL = np.zeros((len(histories), length), dtype=np.int64)
        for row, history in enumerate(histories):
            newest = history[-length:]
            padded_BL[row, length - len(newest) :] = newest
        return torch.from_numpy(padded_BL).to(self.device)

    def _request(self, user_id: str, history: list[int], candidates: list[int]) -> Request:
        assert self.requests is not None
        # By id before shuffling, so that the prompt does not depend on the order in which candidates were
        # retrieved.
        order = seeds.generator(self.config.seed, "prompt", str(user_id)).permutation(len(candidates))
        by_idx = sorted(candidates)
        return self.requests.build(history, candidates, [by_idx[position] for position in order])

    def _llm_scores(self, requests: list[Request], candidates: list[list[int]], users_BH: Tensor) -> Scored:
        """Return the log-probabilities of every request's candidates, or why there are none.

        O_u is [number of requests, H].
        """
        assert self.llm is not None
        budget = self.config.llm.token_budget
        if self.config.scoring.mode == "rank":
            return score_requests(self.llm, requests, self.soft_items, users_BH, budget)
        if self.config.scoring.mode == "free":
            assert self.requests is not None
            titles = self.bundle.items["title"].tolist()
            matched, failures = decode_free(
                self.llm,
                self.requests.layout,
                requests,
                [[titles[item - 1] for item in items] for items in candidates],
                self.soft_items,
                users_BH,
                budget,
                self.config.scoring.repetition_penalty,
                self.config.scoring.match,
            )
        else:
            offsets = [-self._priors_of(items) for items in candidates]
            leaves, failures = decode_constrained(
                self.llm, requests, offsets, self.soft_items, users_BH, budget
            )
            matched = [[leaf] if leaf is not None else [] for leaf in leaves]
        return Scored(
            [_only(own, len(items)) for own, items in zip(matched, candidates, strict=True)], failures
        )

    def _priors_of(self, items: list[int]) -> np.ndarray:
        """Return what is subtracted from the log-probabilities of items [N], [N] float32 nats.

        Zeros where nothing is.
        """
        return self.priors[items] if self.priors is not None else np.zeros(len(items), dtype=np.float32)


def _only(leaves: list[Leaf], size: int) -> np.ndarray | None:
    """Return log-probabilities [size] float32 of the decoded candidates (NaN elsewhere), None without any."""
    if not leaves:
        return None
    values = np.full(size, np.nan, dtype=np.float32)
    for leaf in leaves:
        values[leaf.candidate] = leaf.logprob
    return values

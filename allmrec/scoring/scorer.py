"""The LLM's voice on every user's candidates: a pandas frame in, the same frame with scores out (design §5). No Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from allmrec import seeds
from allmrec.config import Config
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.generate import Leaf, decode_constrained
from allmrec.llm.multi_item import Scored, item_priors, score_requests
from allmrec.llm.packing import Request
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.requests import RequestBuilder

if TYPE_CHECKING:
    from allmrec.bundle import Bundle

__all__ = ["Scorer", "item_priors", "score_requests"]


class Scorer:
    """Scores candidates with one bundle. The prompt is the bundle's own (its titles, priors and blend belong to it); `config` says how to score.

    Without an LLM only the alignment score is computed.
    """

    def __init__(self, bundle: Bundle, llm: FrozenLLM | None, config: Config) -> None:
        self.bundle, self.llm, self.config = bundle, llm, config
        self.rec = bundle.rec.eval()
        self.soft_items = bundle.soft_items
        self.llm_soft_items = bundle.soft_items.to(llm.device) if llm is not None else None
        self.device = bundle.soft_items.device
        prompt = bundle.config.prompt
        self.priors = bundle.priors if prompt.layout == "no_list" and prompt.subtract_prior else None
        self.requests: RequestBuilder | None = None
        if llm is not None:
            self.requests = RequestBuilder(PromptLayout.of(prompt, llm), bundle.titles, llm.max_positions)

    def score(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with the columns below, row by row; it needs user_id, history, candidates (lists of item ids) and use_llm (bool).

        | column | type |
        |---|---|
        | alignment_scores | list of float: cos(O_u, O_c); 0 for a user without any history that the bundle knows |
        | llm_logprobs | list of float, nats before the prior, or of None |
        | llm_choice_scores | list of float, llm_logprobs minus the prior where the layout subtracts it, or of None |
        | llm_failure | None, or prompt_too_long, out_of_memory, non_finite_score |

        In `generate` mode only the decoded candidate, the best by llm_choice_scores, has LLM scores.
        History items that the bundle lacks are passed over. Raises BundleError for a candidate it lacks.
        """
        histories = [
            [self.bundle.index[item] for item in items if item in self.bundle.index]
            for items in frame["history"]
        ]
        candidates = [self._indexed(items) for items in frame["candidates"]]
        users, alignment = self._alignment(histories, candidates)
        logprobs: list[list[float | None]] = [[None] * len(items) for items in candidates]
        choices: list[list[float | None]] = [[None] * len(items) for items in candidates]
        failures: list[str | None] = [None] * len(frame)
        asked = (
            [row for row, use in enumerate(frame["use_llm"]) if use and candidates[row]]
            if self.llm is not None
            else []
        )
        if asked:
            requests = [
                self._request(str(frame["user_id"].iat[row]), histories[row], candidates[row])
                for row in asked
            ]
            scored = self._llm_scores(requests, [candidates[row] for row in asked], users[asked])
            for place, row in enumerate(asked):
                failures[row] = scored.failures[place]
                found = scored.logprobs[place]
                if found is not None:
                    logprobs[row] = _listed(found)
                    choices[row] = _listed(found - self._priors_of(candidates[row]))
        return frame.assign(
            alignment_scores=alignment, llm_logprobs=logprobs, llm_choice_scores=choices, llm_failure=failures
        )

    def _indexed(self, items: list[str]) -> list[int]:
        missing = [item for item in items if item not in self.bundle.index]
        if missing:
            raise BundleError(
                f"bundle {self.bundle.bundle_id}: no item {missing[0]!r} among {len(self.bundle.index):,}, expected every candidate there"
            )
        return [self.bundle.index[item] for item in items]

    @torch.inference_mode()
    def _alignment(
        self, histories: list[list[int]], candidates: list[list[int]]
    ) -> tuple[Tensor, list[list[float]]]:
        """Return O_u [users, H] and the candidates' cosines with it."""
        if not histories:
            return self.soft_items[:0].float(), []
        length = self.bundle.config.sequences.max_history
        padded = np.zeros((len(histories), length), dtype=np.int64)
        for row, history in enumerate(histories):
            newest = history[-length:]
            padded[row, length - len(newest) :] = newest
        users = self.rec.soft_users(torch.from_numpy(padded).to(self.device), self.soft_items).float()
        counts = [len(items) for items in candidates]
        flat = torch.tensor(
            [idx for items in candidates for idx in items], dtype=torch.long, device=self.device
        )
        rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long)).to(
            self.device
        )
        cosines = (
            nn.functional.cosine_similarity(users[rows], self.soft_items[flat].float(), dim=1)
            if len(flat)
            else users.new_zeros(0)
        )
        has_history = torch.tensor(
            [bool(history) for history in histories], dtype=torch.bool, device=self.device
        )
        values = cosines.where(has_history[rows], 0.0).double().cpu().numpy()
        return users, [part.tolist() for part in np.split(values, np.cumsum(counts)[:-1])]

    def _request(self, user_id: str, history: list[int], candidates: list[int]) -> Request:
        assert self.requests is not None
        # By id before shuffling, so that the prompt does not depend on the order in which candidates were retrieved.
        order = seeds.generator(self.config.seed, "prompt", user_id).permutation(len(candidates))
        by_idx = sorted(candidates)
        return self.requests.build(history, candidates, [by_idx[place] for place in order])

    def _llm_scores(self, requests: list[Request], candidates: list[list[int]], users: Tensor) -> Scored:
        assert self.llm is not None
        if self.config.scoring.mode == "rank":
            return score_requests(
                self.llm, requests, self.llm_soft_items, users, self.config.scoring.token_budget
            )
        offsets = [-self._priors_of(items) for items in candidates]
        leaves, failures = decode_constrained(
            self.llm, requests, offsets, self.llm_soft_items, users, self.config.scoring.token_budget
        )
        return Scored(
            [_only(leaf, len(items)) for leaf, items in zip(leaves, candidates, strict=True)], failures
        )

    def _priors_of(self, items: list[int]) -> np.ndarray:
        return self.priors[items] if self.priors is not None else np.zeros(len(items), dtype=np.float32)


def _only(leaf: Leaf | None, size: int) -> np.ndarray | None:
    """Return log-probabilities that are known for one candidate only (NaN elsewhere)."""
    if leaf is None:
        return None
    values = np.full(size, np.nan, dtype=np.float32)
    values[leaf.candidate] = leaf.logprob
    return values


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]

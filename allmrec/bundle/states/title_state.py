"""The state of the titles: tokens and priors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allmrec.bundle.contents import BOOLS, FLOATS, INTEGERS, check_titles, check_tokens, reading
from allmrec.bundle.states.state import ITEM_TENSORS, NewItems, State, Stored
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import TitleTokens


@dataclass(frozen=True)
class TitleState(State):
    """The titles' tokens, and the probability of each title by itself."""

    name = "titles"

    titles: TitleTokens
    priors: np.ndarray | None
    """Float32 [I+1], nats; None: no priors are subtracted."""

    def item_tensors(self) -> dict[str, Tensor]:
        """Return tokens [T], offsets [I+2], and truncated titles and priors [I+1] if they exist."""
        tensors = {
            "title_tokens": torch.from_numpy(self.titles.flat),
            "title_offsets": torch.from_numpy(self.titles.offsets),
        }
        if self.titles.is_cut is not None:
            tensors["title_is_cut"] = torch.from_numpy(self.titles.is_cut)
        if self.priors is not None:
            tensors["priors"] = torch.from_numpy(self.priors.astype(np.float32))
        return tensors

    def save(self, folder: Path) -> None:
        """Write no file, because all tensors are in `ITEM_TENSORS`."""

    @classmethod
    def load(cls, stored: Stored) -> TitleState:
        """Return the state of a stored bundle; raises BundleError for wrong tensors."""
        tokens = stored.tensor("title_tokens", INTEGERS, -1)
        offsets = stored.tensor("title_offsets", INTEGERS, stored.num_rows + 1)
        is_cut: np.ndarray | None = None
        priors: np.ndarray | None = None
        if "title_is_cut" in stored.tensors:
            is_cut = stored.tensor("title_is_cut", BOOLS, stored.num_rows).numpy()
        prompt = stored.config.prompt
        if "priors" in stored.tensors or (prompt.layout == "no_list" and prompt.subtract_prior):
            priors = stored.tensor("priors", FLOATS, stored.num_rows).numpy()
        with reading(stored.folder, ITEM_TENSORS):
            check_titles(tokens, offsets)
            if stored.vocab_size is not None:
                check_tokens(tokens, stored.vocab_size)
        return cls(TitleTokens(tokens.numpy(), offsets.numpy(), is_cut), priors)

    def extended(self, new: NewItems) -> TitleState:
        """Return the state with the changed items' titles.

        The LLM reads the titles if the state has priors.
        """
        layout = PromptLayout.of(new.config.prompt, new.llm)
        read = layout.tokenise_titles(new.changed_titles, new.config.prompt.title_tokens)
        num_before = len(self.titles.offsets) - 1
        rows = [self.titles.of(idx) if idx < num_before else [] for idx in range(new.num_rows)]
        is_cut = None
        # Without `is_cut` the answers of the children end as the answers of their parent.
        if self.titles.is_cut is not None:
            is_cut = np.zeros(new.num_rows, dtype=bool)
            is_cut[:num_before] = self.titles.is_cut
        for number, idx in enumerate(new.changed_idx, start=1):
            rows[idx] = read.of(number)
            if is_cut is not None:
                is_cut[idx] = not read.is_whole(number)
        titles = TitleTokens.from_lists(rows, is_cut)
        if self.priors is None:
            return TitleState(titles, None)
        budget = new.config.llm.token_budget
        priors = np.zeros(new.num_rows, dtype=np.float32)
        priors[:num_before] = self.priors
        priors[new.changed_idx] = item_priors(new.llm, layout, titles, new.changed_idx, budget)
        return TitleState(titles, priors)

    def transferred(self, new: NewItems) -> TitleState:
        """Return the other shop's titles.

        The LLM reads the titles if the state has priors.
        """
        layout = PromptLayout.of(new.config.prompt, new.llm)
        titles = layout.tokenise_titles(new.changed_titles, new.config.prompt.title_tokens)
        if self.priors is None:
            return TitleState(titles, None)
        budget = new.config.llm.token_budget
        return TitleState(titles, item_priors(new.llm, layout, titles, None, budget))

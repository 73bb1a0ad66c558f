"""The frozen LLM's own states of titles, as features of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from allmrec.llm.frozen import FrozenLLM
from allmrec.reporting import Report

DEPTH = 0.8
"""The layer that is read, as a share of all (24 of SmolLM2's 30).

The last layers represent the next token.
"""
BATCH_TITLES = 64


@torch.inference_mode()
def title_states(llm: FrozenLLM, titles: Sequence[str], max_tokens: int | None, report: Report) -> Tensor:
    """Return every title's mean state over its tokens, [I+1, H] float32 (CPU).

    Row 0 is zeros. Titles are read by themselves, after the tokenizer's default beginning, truncated to
    `max_tokens`. An empty title has zeros.
    """
    layer = max(1, round(DEPTH * llm.num_layers))
    tokens = [llm.tokenise(title)[:max_tokens] for title in titles]
    states = torch.zeros(len(titles) + 1, llm.width)
    by_length = sorted((row for row, ids in enumerate(tokens) if ids), key=lambda row: len(tokens[row]))
    start = len(llm.bos_ids)
    with report.progress("states of titles", len(by_length), "titles") as progress:
        progress.update(0)
        for first in range(0, len(by_length), BATCH_TITLES):
            rows = by_length[first : first + BATCH_TITLES]
            lengths = torch.tensor([len(tokens[row]) for row in rows])
            ids = np.full((len(rows), start + int(lengths.max())), llm.eos_id, dtype=np.int64)
            for index, row in enumerate(rows):
                ids[index, : start + len(tokens[row])] = [*llm.bos_ids, *tokens[row]]
            hidden_BTH = (
                llm.states_of_layer(torch.from_numpy(ids).to(llm.device), layer)[:, start:].float().cpu()
            )
            real_BT1 = (torch.arange(hidden_BTH.shape[1]) < lengths[:, None]).unsqueeze(-1)
            states[torch.tensor(rows) + 1] = (hidden_BTH * real_BT1).sum(dim=1) / lengths[:, None]
            progress.update(first + len(rows))
    return states

"""Passes of the LLM that users share, on a CPU: their cost, and their effect on the scores.

    python -m tests.bench.bench_passes [DTYPE] [USERS]

DTYPE is float32 (default) or bfloat16; needs no Spark. Prompts have 1 to 10 items, titles 3 to 12 tokens of
the LLM's vocabulary, and every user 10 candidates. Prints the CPU seconds of passes with one user and of
packed passes, in turn, and how far the log-probabilities of the same candidates differ.
"""

from __future__ import annotations

import sys
import time
from typing import Literal, cast
from unittest.mock import patch

import numpy as np
import torch

from allmrec.cache import default_cache_folder
from allmrec.config import LLMConfig
from allmrec.llm import multi_item
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.packing import Request, Row, group_rows
from allmrec.llm.tokens import TitleTokens
from tests.bench.bench_scoring import Shop

ROUNDS = 3
BUDGETS = {"alone": 1, "packed, 1,024 tokens": 1024, "packed, 4,096 tokens": 4096}
"""Tokens of a pass. A user with more tokens has a pass alone."""
NUM_TITLES, NUM_CANDIDATES = 500, 10


def requests_of(llm: FrozenLLM, shop: Shop) -> list[Request]:
    """Return a request for each user of the shop, with titles and histories of mixed lengths."""
    random = np.random.default_rng(3)
    lengths = random.integers(3, 13, NUM_TITLES)
    tokens = [random.integers(100, llm.vocab_size - 100, length).tolist() for length in lengths]
    titles = TitleTokens.from_lists([[], *tokens], [False] * (NUM_TITLES + 1))
    layout = shop.layouts["no_list"]
    return [
        Request(
            layout.prompt(history[: random.integers(1, 11)], [], titles),
            [layout.answer(candidate, titles) for candidate in candidates],
        )
        for history, candidates in zip(shop.histories, shop.candidates, strict=True)
    ]


def packed(_: FrozenLLM, rows: list[Row], token_budget: int) -> list[list[Row]]:
    """Return the rows of every pass as on a GPU. On a CPU the program gives each user a pass."""
    return group_rows(rows, token_budget)


def main(dtype: str = "float32", num_users: str = "16") -> None:
    """Measure, and print a line for each budget."""
    torch.set_num_threads(1)
    llm = FrozenLLM.load(LLMConfig(dtype=cast(Literal["float32", "bfloat16"], dtype)), default_cache_folder())
    shop = Shop.of(llm, int(num_users), NUM_CANDIDATES)
    requests = requests_of(llm, shop)
    seconds: dict[str, list[float]] = {name: [] for name in BUDGETS}
    found: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        for name, budget in BUDGETS.items():
            start = time.process_time()
            with patch.object(multi_item, "_groups", packed):
                scored = multi_item.score_requests(llm, requests, shop.soft_items, shop.soft_users, budget)
            seconds[name].append(time.process_time() - start)
            found[name] = np.concatenate([one for one in scored.logprobs if one is not None])
    for name, times in seconds.items():
        off = np.abs(found[name] - found["alone"]).max()
        print(f"{dtype}, {name}: {' '.join(f'{one:.1f}' for one in times)} s of CPU, {off:.2g} nats off")


if __name__ == "__main__":
    main(*sys.argv[1:])

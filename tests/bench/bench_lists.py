"""Retrieval and ranking without an LLM: `python -m tests.bench.bench_lists`.

Prints seconds, the median of five runs each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from allmrec.config import ScoringConfig
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import served_order
from allmrec.ranking.served import ranked_rows
from allmrec.scoring.nearest import Search, nearest

NUM_RANKED, NUM_RETRIEVED, NUM_CANDIDATES, NUM_ITEMS, WIDTH, RUNS = 22_000, 2048, 20, 12_000, 64, 5
WEIGHTS = {"cf": 0.4, "text": 0.2, "alignment": 0.2, "llm": 0.2}


def main() -> None:
    """Time both."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    users, items = torch.randn(NUM_RETRIEVED, WIDTH), torch.randn(NUM_ITEMS + 1, WIDTH)
    seen_rows = np.repeat(np.arange(NUM_RETRIEVED), 20)
    seen_items = random.integers(1, NUM_ITEMS + 1, len(seen_rows))
    search = Search(1, np.arange(1, NUM_ITEMS + 1), NUM_CANDIDATES)
    seconds = timed(lambda: nearest([(users, items)], [search], seen_rows, seen_items, 8192))
    print(f"the nearest {NUM_CANDIDATES} of {NUM_ITEMS:,} items, {NUM_RETRIEVED:,} users: {seconds:.2f} s")
    lists, served = random_lists(random), served_order(blends(), ScoringConfig(order="blend_with_llm"))
    seconds = timed(lambda: ranked_rows(lists, served, 10, 0, vectors_of=no_vectors))
    print(f"{NUM_RANKED:,} lists of {NUM_CANDIDATES} ranked: {seconds:.2f} s")


def random_lists(random: np.random.Generator) -> CandidateLists:
    """Users with random candidates and parts; half of them with the LLM."""
    candidates = [
        [f"i{item}" for item in row] for row in random.integers(0, NUM_ITEMS, (NUM_RANKED, NUM_CANDIDATES))
    ]
    lists = CandidateLists.of([f"u{user}" for user in range(NUM_RANKED)], [["h"]] * NUM_RANKED, candidates)
    lists = lists.with_parts(
        {part: random.normal(size=lists.ids.shape) for part in (*WEIGHTS, "llm_logprob")}
    )
    lists.use_llm[:] = random.random(NUM_RANKED) < 0.5
    return lists


def no_vectors(lists: CandidateLists) -> np.ndarray:
    """The texts' vectors, which no re-ranker reads here."""
    return np.zeros((*lists.ids.shape, 0), np.float32)


def blends() -> dict[str, BlendWeights]:
    """Weights of about the usual size."""
    without = {part: weight for part, weight in WEIGHTS.items() if part != "llm"}
    return {
        "with_llm": BlendWeights(WEIGHTS, 0.0, 0.5, 100),
        "without_llm": BlendWeights(without, 0.0, 0.5, 100),
    }


def timed(work: Callable[[], object]) -> float:
    """Return the median seconds of `RUNS` runs."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()

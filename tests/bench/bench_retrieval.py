"""Retrieval in one process and one thread, without Spark: CPU milliseconds a user.

    python -m tests.bench.bench_retrieval TABLES

TABLES holds one bundle, that of `scale_shop` say. Random users, each with ten items of history drawn by
Zipf's law, are searched for with the default settings, without places for rare items, and by the CF model.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from allmrec.bundle import Bundle, load_bundle
from allmrec.config import CandidatesConfig
from allmrec.ranking.search_weights import SearchWeights
from allmrec.scoring.retrieval import Retriever

NUM_USERS, HISTORY, RUNS = 2048, 10, 2


def main(root: Path) -> None:
    """Measure and print; raises ValueError where there is not exactly one bundle."""
    torch.set_num_threads(1)
    [folder] = (root / "_bundles").iterdir()
    bundle, settings = load_bundle(folder, None), CandidatesConfig()
    by_cf = replace(bundle.order, search=SearchWeights({"cf": 1.0}, 0.0, 0))
    no_quota = settings.model_copy(update={"text_quota": 0})
    histories = random_histories(bundle)
    for name, retriever in (
        ("the defaults", Retriever(bundle, None, settings)),
        ("no places for rare items", Retriever(bundle, None, no_quota)),
        ("the CF model alone", Retriever(bundle.with_state(by_cf), None, no_quota)),
    ):
        seconds = [cpu_seconds(retriever, histories) for _ in range(RUNS + 1)][1:]  # the first warms up
        figures = ", ".join(f"{1000 * taken / NUM_USERS:.2f}" for taken in seconds)
        print(f"{bundle.num_items:,} items, {name}: {figures} ms of CPU a user")


def random_histories(bundle: Bundle) -> list[list[str]]:
    """Return histories of item ids, the k-th item about 1/k times as often as the first."""
    ids, random = bundle.items["item_id"].to_numpy(dtype=object), np.random.default_rng(0)
    drawn = np.floor((len(ids) + 1) ** random.random((NUM_USERS, HISTORY))).astype(int) - 1
    return [ids[np.minimum(row, len(ids) - 1)].tolist() for row in drawn]


def cpu_seconds(retriever: Retriever, histories: list[list[str]]) -> float:
    """Return the CPU seconds that this process takes to find everybody's candidates, seen items left out."""
    started = time.process_time()
    retriever.retrieve([f"u{row}" for row in range(NUM_USERS)], histories, histories)
    return time.process_time() - started


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())

"""What links between items do to retrieval and to the blend without the LLM, without Spark.

    python -m tests.bench.bench_links TABLES CONFIG [SECTION.KEY=VALUE …]

TABLES/_snapshots holds one snapshot for evaluation. One bundle is trained without the LLM. Its order is
fitted without links, then with them, and both rank the held-out items of the same users. Differences are
paired.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from allmrec.bundle import Bundle, FittedOrder, LinkState
from allmrec.cache import cache_folder
from allmrec.config import Config, load
from allmrec.llm.frozen import FrozenLLM
from allmrec.parts import LINKS
from allmrec.reporting import Report
from allmrec.scoring.retrieval import Retriever
from allmrec.training.order.fit_order import fit_order
from allmrec.training.pipeline import train_bundle
from allmrec.training.work import Work
from tests.bench.bench_candidates import WITHOUT_LLM, Figures, figures_of, groups_of, in_words
from tests.bench.trained import only_snapshot

TIMED_USERS = 4096
REPEATS = 3


def main(root: Path, config_path: str, overrides: list[str]) -> None:
    """Print the figures of both orders; raises ValueError where there is not exactly one snapshot."""
    snapshot = only_snapshot(root)
    config = load([config_path], [f"tables.root={root}", *WITHOUT_LLM, *overrides])
    llm = FrozenLLM.load(config.llm, cache_folder(config.cache), Report())
    with tempfile.TemporaryDirectory() as folder:
        work = Work(snapshot, config, Path(folder), Report())
        trained, _ = train_bundle(work)
        first: dict[str, Figures] = {}
        for name, bundle in {"without links": without_links(trained), "with links": trained}.items():
            order, figures = fit_order(
                replace(work, config=bundle.config), bundle.with_state(FittedOrder()), llm
            )
            weights = {
                key: value for key, value in figures.items() if "_weight_" in key and "_with_llm" not in key
            }
            print(f"{name}: {', '.join(f'{key} {value:.2f}' for key, value in weights.items())}")
            fitted = bundle.with_state(order)
            for group, users in groups_of(snapshot, config).items():
                found = figures_of(fitted, snapshot.available_items(), users, config)
                print(f"  {group}, n = {len(users):,}: {in_words(found, first.setdefault(group, found))}")
            users = groups_of(snapshot, config)["test"].head(TIMED_USERS)
            retriever = Retriever(fitted, snapshot.available_items(), config.candidates)
            print(f"  retrieval: {cost(retriever, users)}")
            sys.stdout.flush()


def without_links(bundle: Bundle) -> Bundle:
    """Return the bundle without links, whose blend weighs none."""
    states = {name: state for name, state in bundle.states.items() if name != LinkState.name}
    return replace(bundle, states=states, config=without_link_parts(bundle.config))


def without_link_parts(config: Config) -> Config:
    """Return the configuration whose blend weighs no links."""
    parts = tuple(part for part in config.training.blend_parts if part not in LINKS)
    return config.model_copy(update={"training": config.training.model_copy(update={"blend_parts": parts})})


def cost(retriever: Retriever, users: pd.DataFrame) -> str:
    """Return the CPU milliseconds a user of several retrievals, in words."""
    columns = [users[name].tolist() for name in ("user_id", "history", "seen_before")]
    spent = []
    for _ in range(REPEATS):
        started = time.process_time()
        retriever.retrieve(*columns)
        spent.append(1000 * (time.process_time() - started) / len(users))
    return ", ".join(f"{one:.2f}" for one in spent) + " CPU ms a user"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

"""What settings do to the CF model, to retrieval and to the blend without the LLM, without Spark.

    python -m tests.bench.bench_candidates TABLES CONFIG VARIANT …

TABLES/_snapshots holds one snapshot for evaluation. A variant is a text of settings, such as
"cf.width=64 cf.item_init=random", or "" for those of CONFIG. Each is trained without the LLM, and ranks the
held-out items of the validation users, by whom settings are chosen, and of the test users. Differences are
paired, against the first variant.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.bundle import Bundle
from allmrec.config import Config, load
from allmrec.evaluation.comparison import paired
from allmrec.evaluation.protocols import ranked
from allmrec.evaluation.report import target_ranks_of
from allmrec.reporting import Report
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from allmrec.training.loader import Snapshot
from allmrec.training.order.held_back import by_item_id, held_back_users
from allmrec.training.pipeline import train_bundle
from allmrec.training.work import Work
from tests.bench.trained import only_snapshot, users_of

WITHOUT_LLM = [
    *("prompt.soft_tokens=false", "prompt.subtract_prior=false", "training.blend_llm_users=1"),
    *("evaluation.protocols=[retrieved,catalogue]", "evaluation.num_sampled_users=1"),
    "scoring.order=blend_without_llm",
]
CHUNK_USERS = 1024
NUM_SAMPLES = 1000
Figures = dict[str, np.ndarray]
"""Name → value per user, [N] float64."""


def main(root: Path, config_path: str, variants: list[str]) -> None:
    """Print the figures of every variant; raises ValueError where there is not exactly one snapshot."""
    snapshot, first = only_snapshot(root), dict[str, Figures]()
    for variant in variants:
        config = load([config_path], [f"tables.root={root}", *WITHOUT_LLM, *variant.split()])
        with tempfile.TemporaryDirectory() as folder:
            bundle, figures = train_bundle(Work(snapshot, config, Path(folder), Report()))
            print(f"{variant or 'as configured'}: {_trained(figures)}")
            for group, users in groups_of(snapshot, config).items():
                if users.empty:  # nobody holds anything back, say
                    continue
                found = figures_of(bundle, snapshot.available_items(), users, config)
                print(f"  {group}, n = {len(users):,}: {in_words(found, first.setdefault(group, found))}")
        sys.stdout.flush()


def groups_of(snapshot: Snapshot, config: Config) -> dict[str, pd.DataFrame]:
    """Return the validation and the test users: user_id, history, target, seen_before, place."""
    users = by_item_id(held_back_users(snapshot, config), snapshot.items()["item_id"].tolist())
    validation = users.assign(place=range(1, len(users) + 1))
    test = users_of(snapshot, config.seed)
    return {"validation": validation, "test": test.head(config.evaluation.num_users or len(test))}


def figures_of(bundle: Bundle, available: np.ndarray, users: pd.DataFrame, config: Config) -> Figures:
    """Return the CF model's figures in the whole catalogue, and those of the lists that are served."""
    retriever = Retriever(bundle, available, config.candidates)
    scorer = Scorer(bundle, None, config)
    frames = [
        rows
        for start in range(0, len(users), CHUNK_USERS)
        for rows in ranked(users.iloc[start : start + CHUNK_USERS], retriever, scorer, config, _nothing)
    ]
    ranks = pd.concat([frame[["protocol", "model", "user_id", "target_rank"]] for frame in frames])
    in_catalogue, served = (
        target_ranks_of(
            ranks[(ranks["protocol"] == protocol) & (ranks["model"] == model)].sort_values("user_id")
        )
        for protocol, model in (("catalogue", "cf"), ("retrieved", "served"))
    )
    return {
        "CF Recall@10": metrics.hit(in_catalogue, 10),
        "CF NDCG@10": metrics.ndcg(in_catalogue, 10),
        "recall of the list": metrics.hit(served, config.candidates.num_candidates),
        "served HR@10": metrics.hit(served, 10),
        "served NDCG@10": metrics.ndcg(served, 10),
    }


def _nothing(part: str, seconds: float, num_users: int) -> None:
    """Costs are not counted here."""


def _trained(figures: dict[str, float]) -> str:
    """Return how long the CF model was trained, and the weights of retrieval, in words."""
    prefix = "retrieval_weight_"
    weights = {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}
    named = ", ".join(f"{name} {value:.2f}" for name, value in weights.items())
    return f"{figures['cf_epochs']:.0f} epochs in {figures['cf_seconds']:.0f} s, retrieval by {named}"


def in_words(found: Figures, first: Figures) -> str:
    """Return every figure with its paired difference from the first variant's."""
    words = []
    for name, values_N in found.items():
        one = paired(first[name], values_N, NUM_SAMPLES, 0)
        change = "" if found is first else f" ({one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}])"
        words.append(f"{name} {one.second:.4f}{change}")
    return ", ".join(words)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

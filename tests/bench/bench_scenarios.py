"""The scenarios of A-LLMRec's section 5.3: one bundle under each condition, on the same users, without Spark.

    python -m tests.bench.bench_scenarios rank TABLES OUT CONFIG CONDITION … [SECTION.KEY=VALUE …]
    python -m tests.bench.bench_scenarios show OUT …

TABLES holds a bundle for evaluation and its snapshot (`allmrec train`, or `tests.bench.train_snapshot`).
`rank` lets every ranker order the lists of all users, as `allmrec evaluate` does, and writes the ranks of
their next items to OUT.parquet; under `plain` by every protocol, else on the retrieved lists alone. `show`
prints the figures of such files: another machine may have ranked. With evaluation.trained_on=OTHER_TABLES the
bundle is that shop's, which never saw these items.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from allmrec import metrics
from allmrec.bundle import Bundle
from allmrec.config import Config, load
from allmrec.evaluation.comparison import in_words, paired
from allmrec.evaluation.condition import changes_items, with_items
from allmrec.evaluation.protocols import PROTOCOLS, ranked
from allmrec.evaluation.report import target_ranks_of
from allmrec.evaluation.scenarios import scenario_rows, warm_cold
from allmrec.llm.frozen import FrozenLLM
from allmrec.ranking.rankers import entries, label_of
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer
from tests.bench.trained import Trained

ON_LISTS = ["evaluation.protocols=[retrieved]", "evaluation.num_sampled_users=1"]
CONDITIONS: dict[str, list[str]] = {
    "plain": [],
    **{f"history_{num}": [*ON_LISTS, f"evaluation.max_history={num}"] for num in (3, 2, 1, 0)},
    "noisy_text": [*ON_LISTS, "evaluation.text=noisy"],
    "missing_text": [*ON_LISTS, "evaluation.text=missing"],
    "sbert": [*ON_LISTS, "scoring.soft_items=text"],
    "generate": [*ON_LISTS, "scoring.mode=generate"],
}
"""Settings of every condition."""
KEYS = ["condition", "protocol", "user_id", "tail"]
GROUPS = ("all", "found", "warm", "cold")
"""Groups of users that are shown (`allmrec.evaluation.scenarios`)."""
SHOWN = ("Hit@1", "HR@10", "NDCG@10")
COMPARED = (("blend_with_llm", "blend_without_llm"), ("served", "blend_without_llm"), ("served", "cf"))
"""Rankers whose NDCG@10 is compared, the first with the second."""
CHUNK_USERS = 1024
NUM_SAMPLES = 1000


def rank(root: Path, out: Path, config_path: str, conditions: list[str], overrides: list[str]) -> None:
    """Write the target's rank by every ranker, a column each, for every condition, protocol and user."""
    settings = [f"tables.root={root}", *overrides]
    config = load([config_path], settings)
    visited = Trained.newest(root, config, config.evaluation.num_users)
    other = config.evaluation.trained_on
    home = visited if other is None else Trained.newest(Path(other), config, None)
    parts = []
    for condition in conditions:
        config = load([config_path], [*settings, *CONDITIONS[condition]])
        parts.append(ranks_under(condition, visited, home, config))
        # A file after every condition: what is done outlives a kill.
        pd.concat(parts, ignore_index=True).to_parquet(out.with_suffix(".parquet"), index=False)


def ranks_under(condition: str, visited: Trained, home: Trained, config: Config) -> pd.DataFrame:
    """Return KEYS and a column of ranks per ranker: null where the target is not among the candidates.

    The users and items are those of `visited`, the bundle is `home`'s.
    """
    started = time.monotonic()
    items, bundle = visited.snapshot.items(), home.bundle
    if changes_items(config):
        bundle = with_items(bundle, items[["item_id", "title", "description"]], config, home.llm)
    loaded = time.monotonic()
    available = visited.snapshot.available_items()
    ranks = _ranks(visited.users, bundle, available, home.llm, config)
    print(
        f"{condition}: {len(visited.users):,} users, {loaded - started:.0f} s to load, "
        f"{time.monotonic() - loaded:.0f} s to rank",
        flush=True,
    )
    tails = warm_cold(items["num_interactions"].to_numpy(), config.evaluation.tail_share)
    tail_of_item = dict(zip(items["item_id"], tails, strict=True))
    ranks = ranks.assign(condition=condition, tail=ranks["target"].map(tail_of_item))
    return ranks.pivot(index=KEYS, columns="model", values="target_rank").reset_index()


def _ranks(
    users: pd.DataFrame, bundle: Bundle, available: np.ndarray, llm: FrozenLLM, config: Config
) -> pd.DataFrame:
    """Return protocol, user_id, target, model and target_rank of all users; print what the lists cost."""
    retriever = Retriever(bundle, available, config.candidates)
    scorer = Scorer(bundle, llm, config)
    spent = {"lists": [0.0, 0], "llm": [0.0, 0]}

    def count(part: str, seconds: float, num_users: int) -> None:
        spent[part][0] += seconds
        spent[part][1] += num_users

    frames = [
        rows[["protocol", "user_id", "target", "model", "target_rank"]]
        for start in range(0, len(users), CHUNK_USERS)
        for rows in ranked(users.iloc[start : start + CHUNK_USERS], retriever, scorer, config, count)
    ]
    print(", ".join(f"{part}: {num:,} users in {seconds:.0f} s" for part, (seconds, num) in spent.items()))
    return pd.concat(frames, ignore_index=True)


def show(paths: Iterable[Path]) -> None:
    """Print, for every condition, protocol and group of users, the figures of every ranker."""
    for path in paths:
        table = pd.read_parquet(path.with_suffix(".parquet"))
        for condition in table["condition"].unique():
            own = table[table["condition"] == condition]
            for protocol in (name for name in PROTOCOLS if (own["protocol"] == name).any()):
                _show_protocol(f"{path.stem}, {condition}, {protocol}", own[own["protocol"] == protocol])


def _show_protocol(title: str, rows: pd.DataFrame) -> None:
    """Print the figures of one protocol, a table for each group of users."""
    able = [model for model in entries() if model in rows and rows[model].notna().any()]
    by_model = {model: target_ranks_of(rows, model) for model in able}
    first_U = next(iter(by_model.values()))
    for group in GROUPS:
        users = scenario_rows(rows["tail"].to_numpy(dtype=object), first_U, group)
        if users.any():
            share = f", {users.mean():.3f} of all" if group == "found" else ""
            print(f"\n{title}, {group}: n = {users.sum():,}{share}\n")
            _show_group({model: ranks_U[users] for model, ranks_U in by_model.items()})


def _show_group(by_model: Mapping[str, np.ndarray]) -> None:
    """Print a line per ranker, and what NDCG@10 the `COMPARED` ones gain."""
    print(f"| | {' | '.join(SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
    for model, ranks_U in by_model.items():
        values_UM = np.stack([metrics.PER_USER[name](ranks_U) for name in SHOWN], axis=1)
        low_M, high_M = metrics.bootstrap_intervals(values_UM, NUM_SAMPLES)
        cells = [
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, low, high in zip(values_UM.mean(axis=0), low_M, high_M, strict=True)
        ]
        print(f"| {label_of(model)} | {' | '.join(cells)} |")
    for model, other in COMPARED:
        if model in by_model and other in by_model:
            first_U, second_U = (metrics.ndcg(by_model[name], 10) for name in (other, model))
            one = paired(first_U, second_U, NUM_SAMPLES, 0)
            print(f"{label_of(model)} against {label_of(other)}: {in_words('NDCG@10', one)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rank", root, out, config_path, *rest]:
            asked = [word for word in rest if "=" not in word]
            unknown = [word for word in asked if word not in CONDITIONS]
            if unknown or not asked:
                sys.exit(f"{', '.join(unknown) or 'no condition'}: expected some of {', '.join(CONDITIONS)}")
            rank(Path(root), Path(out), config_path, asked, [word for word in rest if "=" in word])
        case ["show", *paths] if paths:
            show(map(Path, paths))
        case _:
            sys.exit(__doc__)

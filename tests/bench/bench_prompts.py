"""Prompt variants: one CF model and stage 1, stage 2 trained anew for each prompt, the same users' lists.

    python -m tests.bench.bench_prompts TABLES CONFIG [NUM_USERS] [VARIANT …] [SECTION.KEY=VALUE …]

TABLES holds a bundle for evaluation and its snapshot. Of a seeded sample of the users whose held-out item is
retrieved, NUM_USERS are read by the LLM. Printed is NDCG@10 of the LLM alone and of the blend with it on
their retrieved lists, and both against the first variant, by the same users. Without variants, all are
measured.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from allmrec import metrics
from allmrec.bundle import AlignmentState, CFState, State
from allmrec.cache import cache_folder
from allmrec.config import Config, load
from allmrec.evaluation.comparison import in_words, paired
from allmrec.evaluation.ranks import ranks_of_candidates, target_ranks
from allmrec.models.text_encoder import TextEncoder
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.decision import resolved
from allmrec.ranking.rankers import rankers
from allmrec.reporting import Report
from allmrec.scoring.scorer import Scorer
from allmrec.training.pipeline import train_states
from allmrec.training.trainers import FrozenModels
from allmrec.training.work import Work
from tests.bench.trained import Trained

VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "no history titles": {"history_items": 1},
    "20 history titles": {"history_items": 20},
    "6 tokens a title": {"title_tokens": 6},
    "24 tokens a title": {"title_tokens": 24},
    "prior not subtracted": {"subtract_prior": False},
    "candidates listed": {"layout": "token_first"},
    "the paper's": {"layout": "paper"},
    "no soft tokens": {"soft_tokens": False},
}
"""Settings of the section `prompt`, by what they change of the configuration's."""
SHOWN = ("llm", "blend_with_llm")
NUM_USERS = 200


def main(root: Path, config_path: str, num_users: int, names: list[str], overrides: list[str]) -> None:
    """Train, read, compare and print."""
    config = load([config_path], [f"tables.root={root}", *overrides])
    trained = Trained.newest(root, config, None)
    lists, targets = found_lists(trained, config, num_users)
    print(f"{len(lists):,} users whose next item is among the {config.candidates.num_candidates} retrieved")
    first: dict[str, np.ndarray] = {}
    for name in names or VARIANTS:
        started = time.monotonic()
        found = ndcg_of(trained, config, VARIANTS[name], lists, targets)
        print(f"{name} ({time.monotonic() - started:.0f} s)")
        for ranker, values_N in found.items():
            one = paired(first.setdefault(ranker, values_N), values_N, metrics.BOOTSTRAP_SAMPLES, 0)
            (low,), (high,) = metrics.bootstrap_intervals(values_N[:, None])
            print(
                f"  {ranker:<8}{values_N.mean():.3f} [{low:.3f}, {high:.3f}]  {in_words('NDCG@10', one)}",
                flush=True,
            )


def found_lists(trained: Trained, config: Config, num_users: int) -> tuple[CandidateLists, list[str]]:
    """Return the retrieved lists that hold the held-out item, and these items, of at most `num_users`."""
    lists = trained.lists(config.candidates)
    targets = trained.users["target"]
    rows = np.flatnonzero(lists.columns_of(targets.tolist()) >= 0)[:num_users]
    return lists.take(rows), targets.iloc[rows].tolist()


def ndcg_of(
    trained: Trained, config: Config, prompt: dict[str, object], lists: CandidateLists, targets: list[str]
) -> dict[str, np.ndarray]:
    """Return NDCG@10 of N users by the rankers SHOWN, [N] float64 each, of a bundle trained with a prompt."""
    old = trained.bundle
    settings = old.config.model_copy(update={
        "prompt": old.config.prompt.model_copy(update=prompt),
        "stage2": config.stage2,
        "training": config.training,
        "llm": config.llm,
        "scoring": config.scoring,
    })  # fmt: skip
    encoder = TextEncoder.load(old.config.text_encoder, cache_folder(config.cache), old.text_encoder_folder)
    aligned: dict[str, State] = {kind.name: old.state(kind) for kind in (CFState, AlignmentState)}
    models = FrozenModels(trained.llm, encoder, trained.snapshot.items(), old.text_embeddings.numpy())
    with tempfile.TemporaryDirectory() as folder:
        bundle, _ = train_states(Work(trained.snapshot, settings, Path(folder), Report()), models, aligned)
    scored = Scorer(bundle, trained.llm, settings).score(lists)
    candidates = scored.listed(scored.ids)
    found = {}
    table = rankers(bundle.blends, resolved(settings.scoring, bundle.decision))
    for name in SHOWN:
        ranks = ranks_of_candidates(table[name].scores(scored), scored, settings.seed)
        of_target = [np.inf if rank is None else rank for rank in target_ranks(candidates, ranks, targets)]
        found[name] = metrics.ndcg(np.array(of_target, dtype=np.float64), 10)
    return found


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    rest = sys.argv[3:]
    numbers = [int(argument) for argument in rest if argument.isdigit()]
    unknown = [word for word in rest if not (word.isdigit() or "=" in word or word in VARIANTS)]
    if unknown:
        sys.exit(f"{', '.join(unknown)}: expected some of {', '.join(VARIANTS)}")
    main(
        Path(sys.argv[1]),
        sys.argv[2],
        numbers[0] if numbers else NUM_USERS,
        [argument for argument in rest if argument in VARIANTS],
        [argument for argument in rest if "=" in argument],
    )

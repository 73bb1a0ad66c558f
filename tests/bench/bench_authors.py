"""What no setting of conf/paper.yaml sets back, measured without Spark.

    python -m tests.bench.bench_authors TABLES [EPOCHS]

TABLES/_snapshots holds one snapshot for evaluation, written with `sequences.max_history=51`: the authors'
code reads 50 items and predicts up to the 51st. First the two forms of an item's sentence are compared by the
packaged encoder. Then the CF model is trained by each variant with two seeds. The test users' items are
ranked among 19 uniform negatives and in the whole catalogue. Differences are paired, to conf/paper.yaml. On
its CF model stage 1 is trained in two orders, with the packaged encoder frozen.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from allmrec import metrics, seeds
from allmrec.cache import cache_folder
from allmrec.config import Config, load
from allmrec.evaluation.comparison import paired
from allmrec.evaluation.negatives import sample_negatives
from allmrec.item_text import item_text
from allmrec.models.cf import CFModel
from allmrec.models.text_encoder import TextEncoder
from allmrec.reporting import Report
from allmrec.training.batches import MIN_LENGTH
from allmrec.training.cf import train_cf
from allmrec.training.item_texts import embed_catalogue
from allmrec.training.loader import HELD_BACK_COLUMNS, Rows, Snapshot
from allmrec.training.stage1 import train_stage1
from allmrec.training.work import Work
from tests.bench.trained import only_snapshot, users_of

INPUTS = 50
SEEDS = (20261121, 7)
USERS_PER_BLOCK = 1024
NUM_SAMPLES = 1000
STAGE1_FIGURES = ("matching_mse", "item_reconstruction", "text_reconstruction", "retrieval_hit@10")
Figures = dict[str, np.ndarray]
"""Name → value per test user, [N] float64."""


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    name: str
    settings: str = ""
    num_inputs: int = INPUTS - 1
    order: Literal["shuffled", "drawn", "file"] = "shuffled"
    """Of an epoch's users: `drawn` with replacement, or as the `file` has them."""


VARIANTS = (
    Variant("conf/paper.yaml"),
    Variant("cf.sasrec.network=pre_norm", "cf.sasrec.network=pre_norm"),
    Variant("50 inputs", num_inputs=INPUTS),
    Variant("users drawn with replacement", order="drawn"),
)


class TrainingRows(Snapshot):
    """The snapshot as a variant reads it, from memory; nobody is held back for early stopping."""

    def __init__(self, folder: Path, variant: Variant) -> None:
        super().__init__(folder)
        self.variant = variant
        self.rows = np.stack(pq.read_table(folder / "sequences")["item_idx"].to_numpy())
        self.rows = self.rows[(self.rows > 0).sum(axis=1) >= MIN_LENGTH]

    @property
    def max_history(self) -> int:
        """What the model reads."""
        return INPUTS

    def held_back(self, role: str) -> pd.DataFrame:
        """Return no rows."""
        return pd.DataFrame(columns=HELD_BACK_COLUMNS)

    def epoch(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        columns: tuple[str, ...] = ("item_idx",),
        min_length: int = 1,
    ) -> Iterator[Rows]:
        """Yield batches of item_idx [B, inputs + 1]."""
        random, count = seeds.generator(seed, "epoch", epoch), len(self.rows)
        order = {
            "shuffled": random.permutation(count),
            "drawn": random.integers(count, size=count),
            "file": np.arange(count),
        }[self.variant.order]
        for start in range(0, count, batch_size):
            rows = self.rows[order[start : start + batch_size]]
            yield {"item_idx": rows[:, -(self.variant.num_inputs + 1) :]}


def main(root: Path, num_epochs: int) -> None:
    """Print every variant's figures; raises ValueError for a snapshot of another length."""
    snapshot = only_snapshot(root)
    if snapshot.max_history != INPUTS + 1:
        raise ValueError(f"sequences.max_history: {snapshot.max_history}, expected {INPUTS + 1}")
    print(sentences(snapshot.items()), flush=True)
    first: dict[int, Figures] = {}
    longest = int(snapshot.lengths().max())
    for variant in VARIANTS:
        if variant.num_inputs == INPUTS and longest <= INPUTS:
            continue  # nobody has so many
        by_seed = {}
        for seed in SEEDS:
            config = load(
                ["conf/paper.yaml"], [f"cf.epochs={num_epochs}", f"seed={seed}", *variant.settings.split()]
            )
            model = trained(snapshot.folder, variant, config)
            if variant is VARIANTS[0]:
                print(stage1_orders(model, snapshot, config), flush=True)
            by_seed[seed] = measured(model, snapshot, config)
            print(f"{variant.name}, seed {seed}: {in_words(by_seed[seed])}", flush=True)
        first = first or by_seed
        if variant is not VARIANTS[0]:
            print(f"  {differences(first, by_seed)}", flush=True)


def sentences(items: pd.DataFrame) -> str:
    """Return how far the authors' sentences and ours are apart: cosine, and items that keep their nearest."""
    config = load([])
    encoder = TextEncoder.load(config.text_encoder, cache_folder(config.cache))
    ours = [item_text(*row) for row in zip(items["title"], items["description"], strict=True)]
    authors = [
        f'"{title}, {description or "Empty description"}"'
        for title, description in zip(items["title"], items["description"], strict=True)
    ]
    vectors = [encoder.encode(texts) for texts in (ours, authors)]
    first, second = (of_form / np.linalg.norm(of_form, axis=1, keepdims=True) for of_form in vectors)
    nearest = [(one @ one.T - 2 * np.eye(len(one))).argmax(axis=1) for one in (first, second)]
    cosine, kept = (first * second).sum(axis=1).mean(), (nearest[0] == nearest[1]).mean()
    return f"sentences of {len(items):,} items: cosine {cosine:.3f}, the nearest is the same for {kept:.1%}"


def trained(folder: Path, variant: Variant, config: Config) -> CFModel:
    """Return the trained CF model."""
    with tempfile.TemporaryDirectory() as work:
        model, _ = train_cf(Work(TrainingRows(folder, variant), config, Path(work), Report()), {})
    return model


def stage1_orders(cf: CFModel, snapshot: Snapshot, paper: Config) -> str:
    """Return the figures of stage 1 with the users shuffled, and as the file has them; frozen encoder."""
    texts = load([]).text_encoder
    stage1 = paper.stage1.model_copy(update={"text_encoder": "frozen"})
    config = paper.model_copy(update={"text_encoder": texts, "stage1": stage1})
    encoder = TextEncoder.load(texts, cache_folder(config.cache))
    embeddings = embed_catalogue(encoder, snapshot.items())
    parts = []
    for variant in (Variant("shuffled"), Variant("file", order="file")):
        rows = TrainingRows(snapshot.folder, variant)
        with tempfile.TemporaryDirectory() as work:
            own = Work(rows, config, Path(work), Report())
            figures = train_stage1(own, cf, encoder, embeddings).figures
        named = (f"{name} {figures[name]:.4f}" for name in STAGE1_FIGURES)
        parts.append(f"{variant.name}: {', '.join(named)}")
    return f"  stage 1, {'; '.join(parts)}"


@torch.no_grad()
def measured(model: CFModel, snapshot: Snapshot, config: Config) -> Figures:
    """Return Hit@1 among 20 and NDCG@10 of the catalogue, per test user."""
    users = users_of(snapshot, SEEDS[0])
    index = dict(zip(snapshot.items()["item_id"], snapshot.items()["item_idx"].tolist(), strict=True))
    found: dict[str, list[np.ndarray]] = {"Hit@1 of 20": [], "NDCG@10 of the catalogue": []}
    for start in range(0, len(users), USERS_PER_BLOCK):
        block = users.iloc[start : start + USERS_PER_BLOCK]
        histories = np.zeros((len(block), INPUTS), dtype=np.int64)
        for row, history in enumerate(block["history"]):
            newest = [index[item] for item in history[-INPUTS:]]
            histories[row, INPUTS - len(newest) :] = newest
        targets = np.array([index[item] for item in block["target"]])
        scores = (model.user_representation(torch.from_numpy(histories)) @ model.item_matrix().T).numpy()
        scores[:, 0] = -np.inf
        sampled = []
        for row, (user, seen) in enumerate(zip(block["user_id"], block["seen"], strict=True)):
            had = {index[item] for item in seen} | {int(targets[row])}
            negatives = sample_negatives(user, had, snapshot.num_items, 19, SEEDS[0])
            sampled.append(scores[row, [targets[row], *negatives]])
            scores[row, [item for item in had if item != targets[row]]] = -np.inf
        among_20 = metrics.ranks_of_target(np.stack(sampled), np.zeros(len(block), dtype=np.int64))
        found["Hit@1 of 20"].append(metrics.hit(among_20, 1))
        found["NDCG@10 of the catalogue"].append(metrics.ndcg(metrics.ranks_of_target(scores, targets), 10))
    return {name: np.concatenate(blocks) for name, blocks in found.items()}


def in_words(figures: Figures) -> str:
    """Return the means."""
    return ", ".join(f"{name} {values.mean():.4f}" for name, values in figures.items())


def differences(first: dict[int, Figures], second: dict[int, Figures]) -> str:
    """Return the paired differences of each user's mean over the seeds, with 95 % intervals."""
    parts = []
    for name in first[SEEDS[0]]:
        one, other = (
            np.mean([of_seed[name] for of_seed in by_seed.values()], axis=0) for by_seed in (first, second)
        )
        found = paired(one, other, NUM_SAMPLES, SEEDS[0])
        parts.append(f"{name} {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
    return ", ".join(parts)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 200)

"""CPU seconds of an epoch of every backbone, on a shop of 10,000 users.

    python -m tests.bench.bench_backbones [USERS] [cf.KEY=VALUE ...]

Needs no Spark. Histories have 2 to 50 items, 7 on average, of 5,000. Default settings, random item vectors,
one thread; epochs of the backbones in turn, after one step that is not counted. Prints the seconds of three
epochs, the weights outside the item table, and the losses.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from allmrec.config import load
from allmrec.models.cf import BACKBONES, build_cf_model
from allmrec.reporting import Report
from allmrec.training.group import ALONE
from allmrec.training.loader import Snapshot
from allmrec.training.objectives import OBJECTIVES
from allmrec.training.work import Work
from tests.unit.snapshot_fixture import write_snapshot

ROUNDS = 3
NUM_ITEMS, MAX_HISTORY, MEAN_LENGTH = 5000, 50, 7
TEXT_WIDTH = 384
"""Width of the packaged sentence encoder's embeddings."""


def shop(folder: Path, num_users: int) -> Snapshot:
    """Write a snapshot of users whose items are near each other, and return it."""
    random = np.random.default_rng(3)
    lengths = np.minimum(random.geometric(1 / (MEAN_LENGTH - 1), num_users) + 1, MAX_HISTORY)
    sequences = {
        f"u{user:06d}": (
            (random.integers(NUM_ITEMS) + random.integers(0, 20, length)) % NUM_ITEMS + 1
        ).tolist()
        for user, length in enumerate(lengths)
    }
    titles = [f"thing {number}" for number in range(NUM_ITEMS)]
    return Snapshot(write_snapshot(folder, sequences, titles, max_history=MAX_HISTORY, row_group_rows=20_000))


class Learner:
    """A backbone that learns epoch after epoch."""

    def __init__(self, name: str, snapshot: Snapshot, settings: list[str]) -> None:
        config = load([], [f"cf.model={name}", *settings])
        torch.manual_seed(0)
        self.model = build_cf_model(config.cf, snapshot.num_items, snapshot.max_history)
        self.model.set_known(torch.from_numpy(snapshot.known_items()))
        work = Work(snapshot, config, snapshot.folder, Report())
        features = {"text": torch.randn(snapshot.num_items + 1, TEXT_WIDTH)}
        prepare = OBJECTIVES[BACKBONES[name].objective]
        objective = prepare(self.model, work, features, torch.device("cpu"), ALONE)
        parameters = [one for module in objective.modules.values() for one in module.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=config.cf.learning_rate, fused=True)
        self.loss = objective.loss
        self.batches = objective.batches
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.step(next(self.batches(0)))

    def step(self, batch: Any) -> float:
        """Learn from a batch of the objective, and return its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def epoch(self, number: int) -> None:
        """Learn from every user once, and keep the CPU seconds and the mean loss."""
        start = time.process_time()
        losses = [self.step(batch) for batch in self.batches(number)]
        self.seconds.append(time.process_time() - start)
        self.losses.append(float(np.mean(losses)))


def main(num_users: str = "10000", *settings: str) -> None:
    """Measure, and print a line for each backbone."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = shop(Path(folder) / "snapshot", int(num_users))
        learners = {name: Learner(name, snapshot, list(settings)) for name in BACKBONES}
        for number in range(ROUNDS):
            for learner in learners.values():
                learner.epoch(number)
    for name, learner in learners.items():
        table = learner.model.item_matrix().numel()
        weights = sum(one.numel() for one in learner.model.parameters()) - table
        seconds = " ".join(f"{one:.1f}" for one in learner.seconds)
        losses = " ".join(f"{one:.2f}" for one in learner.losses)
        print(f"{name}: {seconds} s of CPU, {weights:,} weights beside the items, loss {losses}")


if __name__ == "__main__":
    main(*sys.argv[1:])

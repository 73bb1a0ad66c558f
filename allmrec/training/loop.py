"""The one training loop of the CF model, stage 1 and stage 2.

What makes a resumed run equal to one that was not killed: batches are a function of the epoch alone, torch's generator is seeded anew for
every step from (seed, name, step), and a checkpoint holds weights, optimizer, losses, evaluations, best weights and the place inside the
epoch.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from allmrec import seeds
from allmrec.errors import InputError
from allmrec.training.checkpoint import Checkpointer, Weights, copied_weights

Batch = TypeVar("Batch")
SECONDS_BETWEEN_LINES = 10.0
SMALL_MATRICES = 1
"""Threads for the CF model and stage 1: their matrices are so small that more threads mostly wait for each other."""


@dataclass(frozen=True)
class Evaluation:
    """How a training is evaluated as it goes, and when it stops early.

    `measure()` returns figures by name (modules are in eval mode, no gradients); `select` names the one that decides; training stops after
    `patience` evaluations in a row without a better one (None: never), and the best weights are restored.
    """

    measure: Callable[[], Mapping[str, float]]
    select: str
    every_steps: int
    patience: int | None = None
    higher_is_better: bool = True


@dataclass
class History:
    """What happened in a training: the loss of every step, every evaluation, the best one, and the place to go on from."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] | None = None
    since_best: int = 0
    epoch: int = 0
    batch: int = 0
    finished: bool = False
    stopped_early: bool = False
    seconds: float = 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last 100 steps (NaN before the first)."""
        recent = self.losses[-100:]
        return sum(recent) / len(recent) if recent else math.nan


def fit(
    name: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterator[Batch]],
    loss: Callable[[Batch], Tensor],
    *,
    total_steps: int,
    seed: int,
    checkpointer: Checkpointer,
    report: Callable[[str], None],
    evaluation: Evaluation | None = None,
    clip_norm: float | None = None,
) -> History:
    """Train `modules` in place and return the history; resumes from `checkpointer` where it holds a checkpoint of the same fingerprint.

    `batches(epoch)` yields one epoch's batches, a function of its argument alone; epochs follow one another until `total_steps`.
    `loss(batch)` returns a scalar; all its randomness comes from torch's default generator. Modules not named in `modules` stay as they
    are. `report` gets progress lines: every epoch, every evaluation, and every ten seconds. Raises InputError for an empty epoch or a
    non-finite loss.
    """
    run = _Run(name, modules, optimizer, total_steps, seed, checkpointer, report, evaluation, clip_norm)
    run.resume()
    if not run.history.finished:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            run.train(batches, loss)
        run.finish()
    for module in modules.values():
        module.eval()
    return run.history


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Use `num_threads` torch threads inside the block (0: as they are set)."""
    before = torch.get_num_threads()
    if num_threads:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def training_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Run:
    """The state of one call of `fit`."""

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        seed: int,
        checkpointer: Checkpointer,
        report: Callable[[str], None],
        evaluation: Evaluation | None,
        clip_norm: float | None,
    ) -> None:
        self.name, self.modules, self.optimizer = name, modules, optimizer
        self.total_steps, self.seed, self.clip_norm = total_steps, seed, clip_norm
        self.checkpointer, self.report, self.evaluation = checkpointer, report, evaluation
        self.history = History()
        self.best_weights: Weights | None = None
        self.started = self.last_line = time.monotonic()
        self.steps_before = self.step_of_last_line = 0
        self.seconds_before = 0.0

    def resume(self) -> None:
        found = self.checkpointer.restore(self.modules, self.optimizer)
        if found is None:
            return
        self.history = History(**found.state)
        self.best_weights = found.best
        self.steps_before, self.seconds_before = self.history.step, self.history.seconds
        word = "was finished" if self.history.finished else "resumes"
        self.report(f"{self.name}: {word} at step {self.history.step}/{self.total_steps}")

    def train(self, batches: Callable[[int], Iterable[Batch]], loss: Callable[[Batch], Tensor]) -> None:
        history = self.history
        while history.step < self.total_steps and not history.stopped_early:
            epoch_had_batches = history.batch > 0
            for batch in itertools.islice(batches(history.epoch), history.batch, None):
                epoch_had_batches = True
                self.one_step(batch, loss)
                if history.step >= self.total_steps or history.stopped_early:
                    return
            if not epoch_had_batches:
                raise InputError(
                    f"{self.name}: epoch {history.epoch + 1} had no batches, expected at least one training example"
                )
            history.epoch, history.batch = history.epoch + 1, 0
            if self.step_of_last_line < history.step:
                self.progress()

    def one_step(self, batch: Batch, loss: Callable[[Batch], Tensor]) -> None:
        history = self.history
        for module in self.modules.values():
            module.train()
        torch.manual_seed(seeds.derive(self.seed, self.name, history.step))
        self.optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        number = float(value.detach())
        if not math.isfinite(number):
            raise InputError(
                f"{self.name}: the loss became {number} at step {history.step + 1}, expected a finite number; lower {self.name}.learning_rate"
            )
        value.backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(
                [p for group in self.optimizer.param_groups for p in group["params"]], self.clip_norm
            )
        self.optimizer.step()
        history.losses.append(number)
        history.batch += 1
        if self.evaluation is not None and (
            history.step % self.evaluation.every_steps == 0 or history.step == self.total_steps
        ):
            self.evaluate(self.evaluation)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.progress()
        if self.checkpointer.is_due(history.step):
            self.save()

    def evaluate(self, evaluation: Evaluation) -> None:
        history = self.history
        for module in self.modules.values():
            module.eval()
        with torch.no_grad():
            figures = {key: float(value) for key, value in evaluation.measure().items()}
        figures["step"] = history.step
        history.evaluations.append(figures)
        new, best = figures[evaluation.select], history.best[evaluation.select] if history.best else None
        if best is None or (new > best if evaluation.higher_is_better else new < best):
            history.best, history.since_best = figures, 0
            self.best_weights = copied_weights(self.modules)
        else:
            history.since_best += 1
            history.stopped_early = (
                evaluation.patience is not None and history.since_best >= evaluation.patience
            )
        self.progress(figures)

    def finish(self) -> None:
        history = self.history
        if self.best_weights is not None:
            for name, module in self.modules.items():
                module.load_state_dict(self.best_weights[name])
        history.finished = True
        self.save()
        best = ", best " + _described(history.best) if history.best else ""
        stopped = "stopped early" if history.stopped_early else "done"
        self.report(
            f"{self.name}: {stopped} after {history.step} steps in {history.seconds:.0f} s, loss {history.recent_loss:.4f}{best}"
        )

    def save(self) -> None:
        self.history.seconds = self.seconds_before + time.monotonic() - self.started
        self.checkpointer.save(
            self.history.step, self.modules, self.optimizer, asdict(self.history), self.best_weights
        )

    def progress(self, figures: Mapping[str, float] | None = None) -> None:
        self.last_line, self.step_of_last_line = time.monotonic(), self.history.step
        done = self.history.step - self.steps_before
        left = (self.last_line - self.started) / max(done, 1) * (self.total_steps - self.history.step)
        measured = f", {_described(figures)}" if figures else ""
        self.report(
            f"{self.name}: step {self.history.step}/{self.total_steps}, loss {self.history.recent_loss:.4f}{measured}, at most {left:.0f} s left"
        )


def _described(figures: Mapping[str, Any] | None) -> str:
    return " ".join(f"{key} {value:.4f}" for key, value in (figures or {}).items() if key != "step")

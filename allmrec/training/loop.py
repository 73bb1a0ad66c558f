"""The one training loop of the CF model, stage 1 and stage 2.

What makes a resumed run equal to one that was not killed: batches are a function of the epoch alone, torch's
generator is seeded anew for every step from (seed, name, step), and a checkpoint holds weights, optimizer,
losses, evaluations, best weights and the number of batches done in the epoch.

Several processes that train together (`allmrec.training.group`) each run this loop. They share a batch's work
in `Training.loss`, and are one again where gradients are summed.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from allmrec import seeds
from allmrec.errors import InputError, SetupError
from allmrec.reporting import Progress, Report
from allmrec.training.checkpoint import Checkpointer, Weights, copied_weights
from allmrec.training.group import ALONE, Group

Batch = TypeVar("Batch")
RECENT_STEPS = 100
"""How many of the newest steps `History.recent_loss` is the mean of."""


@dataclass(frozen=True)
class Evaluation:
    """How a training is evaluated, when it stops early, and which weights are its result."""

    measure: Callable[[], Mapping[str, float]]
    """Returns figures by name; called with the modules in eval mode and without gradients."""
    select: str
    """The figure that decides which weights are best."""
    every_steps: int
    """Steps between two evaluations; there is one more after the last step."""
    patience: int | None
    """Evaluations in a row without a better figure after which training stops, and the best weights are its
    result; None: it never stops early, and the last weights are."""
    higher_is_better: bool = True
    """Whether the higher figure is the better one."""

    def is_better(self, figure: float, best: float | None) -> bool:
        """Return whether `figure` is better than the best so far; the first one is."""
        if best is None:
            return True
        return figure > best if self.higher_is_better else figure < best


@dataclass(frozen=True)
class Training(Generic[Batch]):
    """What is trained, on what, and for how long."""

    name: str
    """The section of the configuration that it belongs to; the random draws of its steps depend on it."""
    modules: Mapping[str, nn.Module]
    """What is trained, by the name that it has in checkpoints; all other modules stay as they are."""
    optimizer: torch.optim.Optimizer
    """Updates the parameters of `modules`."""
    batches: Callable[[int], Iterator[Batch]]
    """`batches(epoch)` yields one epoch's batches, a function of its argument alone; epochs count from 0."""
    loss: Callable[[Batch], Tensor]
    """`loss(batch)` returns a scalar; all its randomness comes from torch's default generator. Of several
    processes each returns its share's part: together they sum to the batch's loss."""
    total_steps: int
    """Maximum number of steps."""
    seed: int
    """Seed of the random draws."""
    evaluation: Evaluation | None = None
    """None: nothing is evaluated, and the last weights are the result."""
    clip_norm: float | None = None
    """Maximum norm of the gradient; None: it is not clipped."""
    label: str = ""
    """What a person reads; empty: the name."""


@dataclass
class History:
    """What happened in a training so far, as a checkpoint keeps it."""

    losses: list[float] = field(default_factory=list)
    """The loss of every step."""
    evaluations: list[dict[str, float]] = field(default_factory=list)
    """The figures of every evaluation, with its `step`."""
    best: dict[str, float] | None = None
    """The one whose weights are kept: the best one, or the newest where the last weights are the result."""
    since_best: int = 0
    """Evaluations since the best one."""
    epoch: int = 0
    """Epochs done."""
    batch: int = 0
    """Batches done in the epoch that was begun."""
    finished: bool = False
    stopped_early: bool = False
    seconds: float = 0.0
    """Duration, that of earlier processes included."""

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last RECENT_STEPS steps (NaN before the first)."""
        recent = self.losses[-RECENT_STEPS:]
        return sum(recent) / len(recent) if recent else math.nan


def fit(
    training: Training[Batch], checkpointer: Checkpointer, report: Report, group: Group = ALONE
) -> History:
    """Train `training.modules` in place and return the history; they are left in eval mode.

    A checkpoint of the same fingerprint is continued, a finished training is only loaded. `report` shows
    progress after every step and gets a line where training goes on from a checkpoint and one at the end.
    Every process of `group` calls it with the same training. Raises InputError for an empty epoch or a
    non-finite loss, SetupError where the processes see different checkpoints.
    """
    run = _Run(training, checkpointer, report, group)
    run.resume()
    if not run.history.finished:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with (
            torch.random.fork_rng(devices=devices),
            report.progress(run.label, training.total_steps, "steps") as progress,
        ):
            run.train(progress)
        run.finish()
    for module in training.modules.values():
        module.eval()
    return run.history


def fit_elsewhere(
    training: Training[Batch], checkpointer: Checkpointer, report: Report, launch: Callable[[], None]
) -> History:
    """Return what `fit` returns after `launch()` has trained the same in other processes.

    What they share with this one is the folder of the checkpoints: the one that they finished is loaded.
    Raises SetupError where there is none.
    """
    if not _is_finished(training, checkpointer):
        launch()
        report = Report()  # the first of the processes said how it went
        if not _is_finished(training, checkpointer):
            raise SetupError(
                f"{training.name}: the processes ended, but {checkpointer.folder} has no checkpoint of "
                "theirs, expected a folder that all of them see; name one by cache.folder"
            )
    return fit(training, checkpointer, report)


def _is_finished(training: Training[Batch], checkpointer: Checkpointer) -> bool:
    state = checkpointer.newest_state(training.modules)
    return state is not None and History(**state).finished


class _Run(Generic[Batch]):
    """The state of one call of `fit`."""

    def __init__(
        self, training: Training[Batch], checkpointer: Checkpointer, report: Report, group: Group
    ) -> None:
        self.training = training
        self.checkpointer = checkpointer
        self.report = report
        self.group = group
        self.parameters = [p for kind in training.optimizer.param_groups for p in kind["params"]]
        self.label = training.label or training.name
        self.history = History()
        self.best_weights: Weights | None = None
        self.started = time.monotonic()
        self.seconds_before = 0.0

    def resume(self) -> None:
        """Go on from the newest checkpoint, where there is one."""
        checkpoint = self.checkpointer.restore(self.training.modules, self.training.optimizer)
        if not self.group.agree(checkpoint.step if checkpoint else 0):
            raise SetupError(
                f"{self.training.name}: the processes found different checkpoints in "
                f"{self.checkpointer.folder}, expected a folder that all of them see; "
                "name one by cache.folder"
            )
        if checkpoint is None:
            return
        self.history = History(**checkpoint.state)
        self.best_weights = checkpoint.best
        self.seconds_before = self.history.seconds
        verb = "was finished" if self.history.finished else "resumes"
        self.report(f"{self.label}: {verb} at step {self.history.step}/{self.training.total_steps}")

    def train(self, progress: Progress) -> None:
        """Take steps until there are enough, or until training stops early."""
        history = self.history
        training = self.training
        while history.step < training.total_steps and not history.stopped_early:
            epoch_had_batches = history.batch > 0
            for batch in itertools.islice(training.batches(history.epoch), history.batch, None):
                epoch_had_batches = True
                self.one_step(batch)
                progress.update(history.step, self.detail())
                if history.step >= training.total_steps or history.stopped_early:
                    return
            if not epoch_had_batches:
                raise InputError(
                    f"{training.name}: epoch {history.epoch + 1} had no batches, "
                    "expected at least one training example"
                )
            history.epoch = history.epoch + 1
            history.batch = 0

    def one_step(self, batch: Batch) -> None:
        """Learn from one batch, then evaluate and write a checkpoint where they are due."""
        history = self.history
        training = self.training
        for module in training.modules.values():
            module.train()
        self.group.seed_step(seeds.derive(training.seed, training.name, history.step))
        training.optimizer.zero_grad(set_to_none=True)
        loss = training.loss(batch)
        loss.backward()
        loss_value = self.group.sum_gradients(loss, self.parameters)
        if not math.isfinite(loss_value):
            raise InputError(
                f"{training.name}: the loss became {loss_value} at step {history.step + 1}, "
                f"expected a finite number; lower {training.name}.learning_rate"
            )
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, training.clip_norm)
        training.optimizer.step()
        history.losses.append(loss_value)
        history.batch += 1
        self.evaluate_where_due()
        if self.checkpointer.is_due(history.step):
            self.save()

    def evaluate_where_due(self) -> None:
        """Evaluate after every `every_steps`-th and the last step; keep the best weights, or stop early."""
        history = self.history
        evaluation = self.training.evaluation
        if evaluation is None:
            return
        if history.step % evaluation.every_steps and history.step != self.training.total_steps:
            return
        for module in self.training.modules.values():
            module.eval()
        with torch.no_grad():
            figures = self.group.from_first(
                lambda: {name: float(value) for name, value in evaluation.measure().items()}
            )
        figures["step"] = history.step
        history.evaluations.append(figures)
        best = history.best[evaluation.select] if history.best else None
        if evaluation.patience is None:
            history.best = figures
        elif evaluation.is_better(figures[evaluation.select], best):
            history.best = figures
            history.since_best = 0
            self.best_weights = copied_weights(self.training.modules)
        else:
            history.since_best += 1
            history.stopped_early = history.since_best >= evaluation.patience

    def finish(self) -> None:
        """Restore the best weights, write the last checkpoint and say how it went."""
        history = self.history
        if self.best_weights is not None:
            for name, module in self.training.modules.items():
                module.load_state_dict(self.best_weights[name])
        history.finished = True
        self.save()
        best = ", best " + _described(history.best) if history.best else ""
        outcome = "stopped early" if history.stopped_early else "done"
        self.report(
            f"{self.label}: {outcome} after {history.step} steps in {history.seconds:.0f} s, "
            f"loss {history.recent_loss:.4f}{best}"
        )

    def save(self) -> None:
        """Write a checkpoint: the first process does."""
        if self.group.rank > 0:
            return
        self.history.seconds = self.seconds_before + time.monotonic() - self.started
        self.checkpointer.save(
            self.history.step,
            self.training.modules,
            self.training.optimizer,
            asdict(self.history),
            self.best_weights,
        )

    def detail(self) -> str:
        """Return the recent loss and the newest evaluation in words."""
        loss = f"loss {self.history.recent_loss:.4f}"
        newest = self.history.evaluations[-1] if self.history.evaluations else None
        return f"{loss}, {_described(newest)}" if newest else loss


def _described(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in figures.items() if name != "step")

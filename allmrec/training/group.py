"""The processes that train one model together: what each of them computes, and what they tell each other.

All of them make the same batches. Each computes the loss of its share of a batch, the shares' losses sum to
the batch's, and so do their gradients: after `sum_gradients` every process holds what one process alone would
have computed, and takes the same step. The first process evaluates, and the others hear its figures.

A process that hangs or ends leaves the others waiting. They wait `timeout_seconds` at most, then they end
with an error: that is the watchdog.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from allmrec import seeds
from allmrec.errors import PassingError

Figures = TypeVar("Figures")
DIES_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""


class Group:
    """The processes at work, as one of them sees them: it is number `rank` of `size`, from 0."""

    def __init__(self, rank: int = 0, size: int = 1, timeout_seconds: float = 0.0) -> None:
        self.rank = rank
        self.size = size
        self.timeout_seconds = timeout_seconds
        self._step_seed = 0

    def share(self, num_rows: int) -> slice:
        """Return which rows of a batch this process computes; in a small batch that may be none."""
        return slice(num_rows * self.rank // self.size, num_rows * (self.rank + 1) // self.size)

    def seed_step(self, seed: int) -> None:
        """Seed torch's generators for a step: every process by itself, a process alone by `seed`."""
        self._step_seed = seed
        torch.manual_seed(seed if self.size == 1 else seeds.derive(seed, "process", self.rank))

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        """Let all processes draw the same numbers inside the block: those that are drawn for a whole batch.

        They are what a process alone draws first in the step.
        """
        if self.size == 1:
            yield
            return
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._step_seed)
            yield

    def sum_gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> float:
        """Sum the parameters' gradients over all processes, in place, and return the sum of their losses.

        A parameter that has a gradient in no process gets none.
        """
        if self.size == 1:
            return float(loss.detach())
        has_gradient = torch.tensor([float(p.grad is not None) for p in parameters], device=loss.device)
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([loss.detach().view(1), has_gradient, *(gradient.flatten() for gradient in own)])
        with self._answered():
            distributed.all_reduce(flat)
        loss_value, *num_with = flat[: 1 + len(own)].tolist()
        summed = flat[1 + len(own) :].split([p.numel() for p in parameters])
        for parameter, count, gradient in zip(parameters, num_with, summed, strict=True):
            parameter.grad = gradient.view_as(parameter) if count else None
        return loss_value

    def from_first(self, make: Callable[[], Figures]) -> Figures:
        """Return what `make` returns in the first process, a JSON value; the others wait for it."""
        if self.size == 1:
            return make()
        said = json.dumps(make()).encode() if self.rank == 0 else b""
        length = torch.tensor([len(said)])
        with self._answered():
            distributed.broadcast(length, 0)
        text = torch.zeros(int(length), dtype=torch.uint8)
        if said:
            text = torch.tensor(list(said), dtype=torch.uint8)
        with self._answered():
            distributed.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))

    def agree(self, number: int) -> bool:
        """Return whether all processes have the same number, once all have said theirs."""
        if self.size == 1:
            return True
        extremes = torch.tensor([number, -number])
        with self._answered():
            distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
        return int(extremes[0]) == -int(extremes[1])

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Raise PassingError where the others do not answer what is asked in the block."""
        try:
            yield
        except RuntimeError as error:  # what torch's backends raise
            is_late = "timed out" in str(error).lower()
            found = f"hangs: no answer in {self.timeout_seconds:.0f} s" if is_late else "was lost"
            raise PassingError(
                f"training.processes: one of {self.size} processes {found}, expected all to answer; "
                "run the same command again: it goes on from the last checkpoint"
            ) from error


ALONE = Group()
"""A process that trains by itself."""


@contextmanager
def joined(timeout_seconds: float) -> Iterator[Group]:
    """Join the processes that `torchrun` started beside this one, each with a GPU of its own where there are.

    This process ends where its parent does, however that ends. Raises PassingError where one does not come.
    """
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    group = Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), timeout_seconds)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    with group._answered():
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    yield group
    distributed.destroy_process_group()

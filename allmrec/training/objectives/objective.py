"""The objective of a CF model's training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


class Batches(Protocol):
    """The batches of a training: a call with an epoch, from 0, yields those of the epoch."""

    steps_per_epoch: int

    def __call__(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of `epoch`, a function of the number alone."""


@dataclass(frozen=True)
class Objective:
    """Batches, loss and modules of a CF model's training."""

    batches: Batches
    loss: Callable[[Any], Tensor]
    """Returns the part of this process's share in the loss of a batch, a scalar."""
    modules: Mapping[str, nn.Module]
    """Trained modules by their names in checkpoints. `cf` is the model; the others are dropped after it."""
    settle: Callable[[], None]
    """Writes into the model what follows from the modules' weights, before evaluations and after training."""

"""torch's settings during a training: threads, device, initial weights, dropout of frozen models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from allmrec import seeds

THREADS_FOR_SMALL_MATRICES = 1
"""Threads for the CF model, stage 1 and the warm start: more would mostly wait for each other."""


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Use `num_threads` torch threads inside the block (0: as many as are set)."""
    before = torch.get_num_threads()
    if num_threads:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def training_device() -> torch.device:
    """Return the first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def seeded_initial_weights(seed: int, part: str) -> Iterator[None]:
    """Draw the weights of modules made in the block from (seed, part); torch's generator is then restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, part, "initial weights"))
        yield


@contextmanager
def with_dropout(frozen: nn.Module, is_on: bool) -> Iterator[None]:
    """Keep the dropout of a frozen model on inside the block, where `is_on`; it is left in eval mode."""
    frozen.train(is_on)
    try:
        yield
    finally:
        frozen.eval()

"""What the CF model and stage 1 learn from: batches of the snapshot's sequences in seeded order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from allmrec.errors import InputError
from allmrec.training.loader import Snapshot

MIN_LENGTH = 2
"""A shorter sequence has no item that follows another."""


class SequenceBatches:
    """The sequences with at least two items as batches on a device; a call with an epoch yields its batches.

    `steps_per_epoch` counts them. Raises InputError where there are none; `purpose` says in the message what
    they are for.
    """

    def __init__(
        self, snapshot: Snapshot, batch_size: int, seed: int, device: torch.device, purpose: str
    ) -> None:
        self.snapshot = snapshot
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.steps_per_epoch = snapshot.num_batches(batch_size, MIN_LENGTH)
        if self.steps_per_epoch == 0:
            raise InputError(
                f"{snapshot.folder}/sequences: no user has two interactions, expected some {purpose}; "
                "give more interactions"
            )

    def __call__(self, epoch: int) -> Iterator[Tensor]:
        """Yield the batches of `epoch`: item_idx [B, L] int64, left-padded with 0, oldest first.

        The last batch may have fewer rows than the others.
        """
        for batch in self.snapshot.epoch(
            self.batch_size, self.seed, epoch, columns=("item_idx",), min_length=MIN_LENGTH
        ):
            yield torch.from_numpy(batch["item_idx"].astype(np.int64)).to(self.device)

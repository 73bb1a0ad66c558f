"""Training examples of stage 2: users whose next item was held back from the CF model and from stage 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec import seeds
from allmrec.models.a_llmrec import ALLMRec

USERS_PER_BLOCK = 1024
"""Users whose representations are computed together."""


@dataclass(frozen=True)
class Examples:
    """N users with a history, the item that each of them gave up, and their frozen user representations."""

    user_ids: list[str]
    histories: Tensor
    """[N, L] int64: item_idx, left-padded with 0."""
    targets: Tensor
    """[N] int64: item_idx of the held-back items."""
    seen: list[np.ndarray]
    """Per user, [number of items] int64: item_idx of the items that the user had before."""
    x: Tensor
    """[N, D] float: x_u of `ALLMRec.user_inputs`."""
    known: Tensor
    """[N] bool: whether the CF model knows something of the history."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        rec: ALLMRec,
        device: torch.device,
        max_users: int | None = None,
        seed: int = 0,
    ) -> Examples:
        """Return the examples of the `rows` of `Snapshot.held_back` with a history, as tensors on `device`.

        Where there are more than `max_users`, a seeded sample of them is taken.
        """
        rows = rows[rows["length"] > 0] if len(rows) else rows
        if max_users is not None and len(rows) > max_users:
            chosen = seeds.generator(seed, "stage2", "users").permutation(len(rows))[:max_users]
            rows = rows.iloc[np.sort(chosen)]
        if not len(rows):
            return cls._none(rec, device)
        histories = torch.from_numpy(np.stack(rows["item_idx"].to_list()).astype(np.int64)).to(device)
        vectors = [
            rec.user_inputs(histories[start : start + USERS_PER_BLOCK])
            for start in range(0, len(rows), USERS_PER_BLOCK)
        ]
        return cls(
            rows["user_id"].astype(str).tolist(),
            histories,
            torch.from_numpy(rows["held_back"].to_numpy(dtype=np.int64)).to(device),
            [np.asarray(seen, dtype=np.int64) for seen in rows["seen_before"]],
            torch.cat([x for x, _ in vectors]),
            torch.cat([known for _, known in vectors]),
        )

    @classmethod
    def _none(cls, rec: ALLMRec, device: torch.device) -> Examples:
        """Return the examples of no users: N is 0, L is 1."""
        idx = torch.zeros(0, dtype=torch.int64, device=device)
        return cls([], idx.view(0, 1), idx, [], torch.zeros(0, rec.cf.width, device=device), idx.bool())

    def candidates(self, row: int, num_candidates: int, num_items: int, seed: int, draw: int) -> np.ndarray:
        """Return the target and up to num_candidates − 1 items that the user had not before, in random order.

        They are item_idx, [at most num_candidates] int64, drawn uniformly: a function of (seed, user, draw)
        and of the user's items.
        """
        random = seeds.generator(seed, "stage2", "candidates", self.user_ids[row], draw)
        target = int(self.targets[row])
        taken = {target, *self.seen[row].tolist(), *self.histories[row].tolist()}
        num_negatives = min(num_candidates - 1, num_items - len(taken - {0}))
        negatives: list[int] = []
        if num_negatives * 2 > num_items - len(taken):
            # So few are left that drawing until there are enough could take long.
            free = np.setdiff1d(np.arange(1, num_items + 1), list(taken))
            negatives = random.permutation(free)[: max(num_negatives, 0)].tolist()
        while len(negatives) < num_negatives:
            for item in random.integers(1, num_items + 1, num_negatives).tolist():
                if item not in taken and len(negatives) < num_negatives:
                    taken.add(item)
                    negatives.append(item)
        return random.permutation(np.array([target, *negatives], dtype=np.int64))

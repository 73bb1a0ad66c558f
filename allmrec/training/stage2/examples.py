"""Training examples of stage 2: users whose next item was held back from the CF model and from stage 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec import seeds
from allmrec.models.a_llmrec import ALLMRec

BLOCK = 1024


@dataclass(frozen=True)
class Examples:
    """N users. `histories` [N, L] int64 (left-padded with 0), `targets` [N] int64, `x` [N, D] and `known` [N] of `ALLMRec.user_inputs`."""

    user_ids: list[str]
    histories: Tensor
    targets: Tensor
    seen: list[np.ndarray]
    x: Tensor
    known: Tensor

    def __len__(self) -> int:
        return len(self.user_ids)

    @classmethod
    def of(
        cls, rows: pd.DataFrame, rec: ALLMRec, device: torch.device, most: int | None = None, seed: int = 0
    ) -> Examples:
        """Take the held-back rows with a history (a seeded sample of `most`), with their frozen user representations."""
        rows = rows[rows["length"] > 0] if len(rows) else rows
        if most is not None and len(rows) > most:
            chosen = seeds.generator(seed, "stage2", "users").permutation(len(rows))[:most]
            rows = rows.iloc[np.sort(chosen)]
        if not len(rows):
            none = torch.zeros(0, dtype=torch.int64, device=device)
            return cls(
                [], none.view(0, 1), none, [], torch.zeros(0, rec.cf.width, device=device), none.bool()
            )
        on_device = torch.from_numpy(np.stack(rows["item_idx"].to_list()).astype(np.int64)).to(device)
        vectors = [rec.user_inputs(on_device[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)]
        return cls(
            rows["user_id"].astype(str).tolist(),
            on_device,
            torch.from_numpy(rows["held_back"].to_numpy(dtype=np.int64)).to(device),
            [np.asarray(seen, dtype=np.int64) for seen in rows["seen"]],
            torch.cat([x for x, _ in vectors]),
            torch.cat([known for _, known in vectors]),
        )

    def candidates(self, row: int, num_candidates: int, num_items: int, seed: int, draw: int) -> np.ndarray:
        """Return the target and up to num_candidates − 1 uniform items that the user never had, in random order: a function of (seed, user, draw)."""
        random = seeds.generator(seed, "stage2", "candidates", self.user_ids[row], draw)
        target = int(self.targets[row])
        taken = {target, *self.seen[row].tolist(), *self.histories[row].tolist()}
        wanted = min(num_candidates - 1, num_items - len(taken - {0}))
        negatives: list[int] = []
        if wanted * 2 > num_items - len(
            taken
        ):  # few are left: drawing until enough are found could take long
            free = np.setdiff1d(np.arange(1, num_items + 1), list(taken))
            negatives = random.permutation(free)[: max(wanted, 0)].tolist()
        while len(negatives) < wanted:
            for item in random.integers(1, num_items + 1, wanted).tolist():
                if item not in taken and len(negatives) < wanted:
                    taken.add(item)
                    negatives.append(item)
        return random.permutation(np.array([target, *negatives], dtype=np.int64))

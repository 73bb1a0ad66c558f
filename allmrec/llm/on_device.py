"""A packed batch on the device of the LLM: copied at once, its mask made there."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from allmrec.llm.packing import PackedBatch


def seen(ends_BT: Tensor) -> Tensor:
    """Return whether a token (second axis) may see another one (third axis), [B, T, T] bool.

    `ends_BT` are those of a `PackedBatch`.
    """
    columns_T = torch.arange(ends_BT.shape[1], device=ends_BT.device)
    return (columns_T[:, None] >= columns_T) & (columns_T[:, None] < ends_BT[:, None, :])


def on_device(batch: PackedBatch[np.ndarray], device: torch.device) -> PackedBatch[Tensor]:
    """Return the batch as tensors on a device.

    A GPU gets all in one copy from pinned memory, which this does not wait for.
    """
    arrays = {field.name: getattr(batch, field.name) for field in fields(batch)}
    flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]))
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    parts = flat.split([array.size for array in arrays.values()])
    return PackedBatch(**{
        name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)
    })  # fmt: skip

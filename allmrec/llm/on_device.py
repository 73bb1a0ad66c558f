"""A packed batch on the LLM's device, where its mask is made."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from allmrec.llm.packing import PackedBatch


def seen(ends_BT: Tensor) -> Tensor:
    """Return whether a token sees another one, [B, T, T] bool.

    The token of the second axis sees that of the third. `ends_BT` are those of a `PackedBatch`.
    """
    columns_T = torch.arange(ends_BT.shape[1], device=ends_BT.device)
    return (columns_T[:, None] >= columns_T) & (columns_T[:, None] < ends_BT[:, None, :])


def on_device(batch: PackedBatch[np.ndarray], device: torch.device) -> PackedBatch[Tensor]:
    """Return the batch as tensors on a device.

    A GPU gets one asynchronous copy from pinned memory.
    """
    arrays = {field.name: getattr(batch, field.name) for field in fields(batch)}
    flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]))
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    parts = flat.split([array.size for array in arrays.values()])
    return PackedBatch(**{
        name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)
    })  # fmt: skip

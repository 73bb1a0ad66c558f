"""Content hashes of weights: of a model in memory (frozen checks) and of safetensors files (which LLM a bundle was trained with)."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from allmrec.errors import NotFrozenError


def hash_parameters(module: nn.Module) -> str:
    """Return the sha256 over names, types, shapes and bytes of all parameters and buffers; two calls differ iff something changed."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        _add(digest, name, tensor)
    return digest.hexdigest()


def check_frozen(module: nn.Module, hash_before: str, name: str) -> None:
    """Raise NotFrozenError where the module's weights are not those of `hash_before`."""
    if hash_parameters(module) != hash_before:
        raise NotFrozenError(f"{name}: the weights changed in training, expected them frozen")


def hash_safetensors(files: list[Path], cache: Path) -> str:
    """Return the sha256 over all tensors stored in `files` (independent of their sharding), remembered in `cache` by path, size and time."""
    stamp = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)]
    remembered = cache / f"{hashlib.sha256(json.dumps(stamp).encode()).hexdigest()}.json"
    if remembered.exists():
        return json.loads(remembered.read_text(encoding="utf-8"))["weight_hash"]
    where: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            where.update(dict.fromkeys(tensors.keys(), file))
    digest = hashlib.sha256()
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as tensors:
            _add(digest, name, tensors.get_tensor(name))
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f".{uuid.uuid4().hex}"
    partial.write_text(json.dumps({"weight_hash": digest.hexdigest(), "files": stamp}), encoding="utf-8")
    os.replace(partial, remembered)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    stored = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(stored.view(torch.uint8).numpy().data)

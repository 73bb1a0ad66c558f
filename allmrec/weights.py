"""Content hashes of models in memory, of safetensors files, and of files."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from allmrec.errors import NotFrozenError

BLOCK_BYTES = 1 << 20
"""Bytes of a file that are read at a time."""


def hash_parameters(module: nn.Module) -> str:
    """Return the SHA-256 over all tensors of a module.

    The hash covers names, types, shapes and bytes of all parameters and buffers. Two calls return different
    hashes if and only if a tensor changed in between.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        _add_tensor(digest, name, tensor)
    return digest.hexdigest()


def check_frozen(module: nn.Module, hash_before: str, name: str) -> None:
    """Raise NotFrozenError where the module's weights differ from `hash_before`."""
    if hash_parameters(module) != hash_before:
        raise NotFrozenError(f"{name}: the weights changed in training, expected them frozen")


def hash_safetensors(files: Sequence[Path], cache: Path) -> str:
    """Return the SHA-256 over all tensors in `files`, however they are split.

    A tensor of several files counts as in the last of them. The result is stored in the folder `cache` by the
    files' stamps. Raises SafetensorError for a file that is truncated or no safetensors, OSError where a file
    cannot be read or the cache cannot be written.
    """
    stamps = [_stamp(file) for file in files]
    remembered = cache / f"{hashlib.sha256(json.dumps(stamps).encode()).hexdigest()}.json"
    known = _remembered_hash(remembered)
    if known is not None:
        return known
    weight_hash = _hash_stored_tensors(files)
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f".{uuid.uuid4().hex}"
    partial.write_text(json.dumps({"weight_hash": weight_hash, "files": stamps}), encoding="utf-8")
    os.replace(partial, remembered)
    return weight_hash


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _stamp(file: Path) -> list[str | int]:
    """Return values that change whenever a file may have changed.

    Archives and copies can preserve a modification time, but not the time of the last change.
    """
    found = file.stat()
    return [str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _remembered_hash(path: Path) -> str | None:
    """Return the hash in a file of the cache, or None."""
    try:
        weight_hash = json.loads(path.read_text(encoding="utf-8"))["weight_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return weight_hash if isinstance(weight_hash, str) else None


def _hash_stored_tensors(files: Sequence[Path]) -> str:
    file_of_tensor: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            file_of_tensor.update(dict.fromkeys(tensors.keys(), file))
    digest = hashlib.sha256()
    for name in sorted(file_of_tensor):
        with safe_open(file_of_tensor[name], framework="pt") as tensors:
            _add_tensor(digest, name, tensors.get_tensor(name))
    return digest.hexdigest()


def _add_tensor(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    """Add a tensor (any shape and type) to `digest`."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)

"""Checkpoints of a running training: safetensors for tensors, JSON for the rest, never pickle.

One folder per checkpoint, `<folder>/step_<n>/`, written under a temporary name and renamed, so that a killed
writer leaves no half of one:

    <module>.safetensors        weights and buffers of every trained module
    best_<module>.safetensors   the best weights so far (where there is an evaluation)
    optimizer.safetensors       the optimizer's tensors, named `<parameter index>.<state name>`
    state.json                  step, fingerprint, settings of the optimizer, state of the loop
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Weights = dict[str, dict[str, Tensor]]
"""Weights and buffers by module, then by name, of any shape."""


@dataclass(frozen=True)
class Checkpoint:
    """What was restored beside modules and optimizer."""

    step: int
    """The step after which it was taken."""
    state: dict[str, Any]
    """The loop's state, JSON values."""
    best: Weights | None
    """The best weights so far; None where nothing was evaluated yet."""


@dataclass(frozen=True)
class _Stored:
    """The content of a checkpoint's folder; tensors are of any shape."""

    record: dict[str, Any]
    """`state.json`."""
    weights: Weights
    optimizer: dict[str, Tensor]
    best: Weights | None


class Checkpointer:
    """Keeps the newest checkpoint of one training in `folder`, one after every `every` steps.

    `fingerprint` names what the training depends on (settings, snapshot): a checkpoint with another one is
    ignored and replaced, so that a changed setting never continues an old run.
    """

    def __init__(self, folder: Path, every: int, fingerprint: str = "") -> None:
        self.folder = Path(folder)
        self.every = every
        self.fingerprint = fingerprint

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is to be written after `step`."""
        return step % self.every == 0

    def save(
        self,
        step: int,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        best: Weights | None = None,
    ) -> None:
        """Write the checkpoint of `step` (atomic) and drop the older ones. `state` holds JSON values only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".partial_{uuid.uuid4().hex}"
        partial.mkdir()
        for name, module in modules.items():
            _save(module.state_dict(), partial / f"{name}.safetensors")
        for name, weights in (best or {}).items():
            _save(weights, partial / f"best_{name}.safetensors")
        tensors, settings = _split_optimizer(optimizer)
        _save(tensors, partial / "optimizer.safetensors")
        record = {
            "step": step,
            "fingerprint": self.fingerprint,
            "optimizer": settings,
            "has_best": best is not None,
            "state": dict(state),
        }
        (partial / "state.json").write_text(json.dumps(record), encoding="utf-8")
        final = self.folder / f"step_{step:09d}"
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        self._drop_all_but(final)

    def restore(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> Checkpoint | None:
        """Load the newest readable checkpoint of this fingerprint, in place; None where there is none."""
        stored = self._newest(modules)
        if stored is None:
            return None
        for name, module in modules.items():
            module.load_state_dict(stored.weights[name])
        _restore_optimizer(optimizer, stored.optimizer, stored.record["optimizer"])
        return Checkpoint(stored.record["step"], stored.record["state"], stored.best)

    def newest_state(self, modules: Mapping[str, nn.Module]) -> dict[str, Any] | None:
        """Return the loop's state in the checkpoint that `restore` would load; None where there is none."""
        stored = self._newest(modules)
        return stored.record["state"] if stored else None

    def _newest(self, modules: Mapping[str, nn.Module]) -> _Stored | None:
        """Return the newest readable checkpoint of this fingerprint, None where there is none."""
        folders = sorted(self.folder.glob("step_*"), reverse=True)
        return next(filter(None, (self._read(folder, modules) for folder in folders)), None)

    def _read(self, folder: Path, modules: Mapping[str, nn.Module]) -> _Stored | None:
        """Return what `folder` holds; None where it is damaged or of another fingerprint."""
        try:
            record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if record["fingerprint"] != self.fingerprint:
                return None
            return _Stored(
                record,
                {name: load_file(folder / f"{name}.safetensors") for name in modules},
                load_file(folder / "optimizer.safetensors"),
                {name: load_file(folder / f"best_{name}.safetensors") for name in modules}
                if record["has_best"]
                else None,
            )
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError):
            return None  # a disk that failed: an older checkpoint, or the start, is still right

    def _drop_all_but(self, newest: Path) -> None:
        for folder in [*self.folder.glob("step_*"), *self.folder.glob(".partial_*")]:
            if folder != newest:
                shutil.rmtree(folder, ignore_errors=True)


def copied_weights(modules: Mapping[str, nn.Module]) -> Weights:
    """Return a detached copy of every module's weights and buffers, in their shapes."""
    return {
        name: {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
        for name, module in modules.items()
    }


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any shape; each is cloned, for safetensors refuses tensors that share memory."""
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, path)


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the optimizer's tensors, of any shape, by `<index>.<name>`, and its settings."""
    state = optimizer.state_dict()
    tensors = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value)
    return tensors, state["param_groups"]


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], settings: list[dict[str, Any]]
) -> None:
    """Load what `_split_optimizer` returned into `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": settings})

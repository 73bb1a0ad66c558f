"""Bundles on disk: save, load with every check, and the choice of the one that a night uses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file
from torch import Tensor

from allmrec.bundle.bundle import Bundle
from allmrec.bundle.contents import ITEM_COLUMNS, check_items, reading
from allmrec.bundle.folder import verify_bundle, write_folder
from allmrec.bundle.manifest import Manifest
from allmrec.bundle.states import Stored, loaded_states
from allmrec.bundle.states.state import ITEM_TENSORS, save_tensors
from allmrec.config import Config, from_stored
from allmrec.errors import BundleError, ConfigError
from allmrec.llm.frozen import FrozenLLM


def save_bundle(root: Path, bundle: Bundle, origin: Mapping[str, Any]) -> str:
    """Write the bundle as `<root>/<bundle_id>` in one rename and return its id.

    `origin` is added to the manifest and is part of the hash: purpose, trained_before, fingerprint, figures,
    table and package versions. Raises SetupError where the disk does not take it.
    """
    manifest = bundle.manifest.with_origin(origin)
    return write_folder(root, None, lambda folder: write_parts(folder, bundle), manifest).bundle_id


def load_bundle(folder: Path, llm: FrozenLLM | None) -> Bundle:
    """Load a bundle after checking every file.

    Raises BundleError that names what is wrong: a file, or an `llm` (where one is given) with other weights
    than the one the bundle was trained with.
    """
    folder = Path(folder)
    manifest = verify_bundle(folder)
    if llm is not None:
        check_llm(manifest, llm.name, llm.weight_hash)
    config = _load_config(folder)
    with reading(folder, "items.parquet"):
        items = pd.read_parquet(folder / "items.parquet")
        check_items(items, manifest.num_items)
    with reading(folder, ITEM_TENSORS):
        tensors = load_file(folder / ITEM_TENSORS)
    vocab_size = None if llm is None else llm.vocab_size
    stored = Stored(folder, manifest, config, tensors, vocab_size)
    return Bundle(manifest, config, items, loaded_states(stored), folder)


def select_bundle(manifests: Sequence[Manifest], run_date: date) -> Manifest:
    """Return the manifest of the newest serving bundle with trained_before ≤ run_date; never a child.

    Among equals it is the latest created. Raises BundleError where there is none.
    """
    serving = [
        manifest for manifest in manifests if manifest.purpose == "serving" and manifest.parent_id is None
    ]
    old_enough = [manifest for manifest in serving if manifest.trained_before <= str(run_date)]
    if not old_enough:
        oldest = min((manifest.trained_before for manifest in serving), default=None)
        there = f"{len(serving)} trained before {oldest} or later" if serving else "none"
        raise BundleError(
            f"no serving bundle with trained_before ≤ {run_date}: found {there}; "
            f"train one (allmrec train --run-date {run_date})"
        )
    return max(old_enough, key=lambda manifest: (manifest.trained_before, manifest.created_at))


def check_llm(manifest: Manifest, name: str, weight_hash: str) -> None:
    """Raise BundleError where the LLM `name` has other weights than the one the bundle was trained with."""
    trained = manifest.llm
    if trained.weight_hash != weight_hash:
        raise BundleError(
            f"bundle {manifest.bundle_id}: trained with the LLM {trained.name} ({trained.weight_hash[:12]}), "
            f"found {name} ({weight_hash[:12]}); "
            "set llm.model to the former, or train with the latter"
        )


def write_parts(folder: Path, bundle: Bundle) -> None:
    """Write every file of the bundle but the manifest into an empty folder."""
    (folder / "config.json").write_text(bundle.config.model_dump_json(indent=1), encoding="utf-8")
    types = {"item_idx": "int32", "num_interactions": "int64"}
    bundle.items[ITEM_COLUMNS].astype(types).to_parquet(folder / "items.parquet", index=False)
    tensors: dict[str, Tensor] = {}
    for state in bundle.states.values():
        tensors |= state.item_tensors()
        state.save(folder)
    save_tensors(tensors, folder / ITEM_TENSORS)


def _load_config(folder: Path) -> Config:
    """Return the configuration that the bundle was trained with."""
    try:
        return from_stored(dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    except (ConfigError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"bundle {folder}: config.json does not fit this allmrec ({error}); use the one that wrote it"
        ) from error

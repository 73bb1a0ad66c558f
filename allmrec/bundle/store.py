"""Bundles on disk: save, load with every check, and the choice of the one that a night uses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from allmrec.bundle.bundle import Bundle
from allmrec.bundle.contents import (
    ITEM_COLUMNS,
    check_finite,
    check_items,
    check_network,
    check_tensors,
    check_tokens,
    reading,
)
from allmrec.bundle.folder import verify_bundle, write_folder
from allmrec.bundle.manifest import Manifest
from allmrec.bundle.states.order_state import FittedOrder
from allmrec.config import Config, from_stored
from allmrec.errors import BundleError, ConfigError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.tokens import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import CFModel, build_cf_model
from allmrec.models.projection import Projection, item_input_width


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
    with reading(folder, "items.safetensors"):
        tensors = load_file(folder / "items.safetensors")
        check_tensors(tensors, manifest, config.stage1.width, config.prompt.layout == "no_list")
        check_finite(tensors)
        if llm is not None:
            check_tokens(tensors["title_tokens"], llm.vocab_size)
    encoder = folder / "text_encoder"
    return Bundle(
        manifest=manifest,
        config=config,
        items=items,
        rec=_load_models(folder, config, manifest, tensors),
        titles=TitleTokens(
            tensors["title_tokens"].numpy(),
            tensors["title_offsets"].numpy(),
            tensors["title_is_cut"].numpy() if "title_is_cut" in tensors else None,
        ),
        priors=tensors["priors"].numpy() if "priors" in tensors else None,
        soft_items=tensors["soft_items"],
        text_centre=tensors.get("text_centre"),
        order=FittedOrder.load(folder, is_finished=bool(manifest.purpose)),
        folder=folder,
        text_encoder_folder=encoder if encoder.is_dir() else None,
    )


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
    bundle.order.save(folder)
    types = {"item_idx": "int32", "num_interactions": "int64"}
    bundle.items[ITEM_COLUMNS].astype(types).to_parquet(folder / "items.parquet", index=False)
    tensors = {
        "text_embeddings": bundle.text_embeddings.float(),
        "known": bundle.rec.known,
        "title_tokens": torch.from_numpy(bundle.titles.flat),
        "title_offsets": torch.from_numpy(bundle.titles.offsets),
        "soft_items": bundle.soft_items.float(),
    }
    if bundle.text_centre is not None:
        tensors["text_centre"] = bundle.text_centre
    if bundle.titles.is_cut is not None:
        tensors["title_is_cut"] = torch.from_numpy(bundle.titles.is_cut)
    if bundle.priors is not None:
        tensors["priors"] = torch.from_numpy(bundle.priors.astype(np.float32))
    _save_tensors(tensors, folder / "items.safetensors")
    for name, module in _modules(bundle.rec).items():
        _save_tensors(module.state_dict(), folder / f"{name}.safetensors")
    if bundle.text_encoder_folder is not None:
        shutil.copytree(bundle.text_encoder_folder, folder / "text_encoder")


class _Networks(NamedTuple):
    """The networks of a bundle, named as their files are."""

    cf: CFModel
    stage1: AlignmentNetworks
    stage2: Projection


def _modules(rec: ALLMRec) -> dict[str, nn.Module]:
    """Return the modules that a bundle stores, by the name of their file."""
    return _Networks(rec.cf, rec.alignment, rec.projection)._asdict()


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors of any shape and type to a safetensors file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _load_config(folder: Path) -> Config:
    """Return the configuration that the bundle was trained with."""
    try:
        return from_stored(dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
    except (ConfigError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"bundle {folder}: config.json does not fit this allmrec ({error}); use the one that wrote it"
        ) from error


def _load_models(folder: Path, config: Config, manifest: Manifest, tensors: dict[str, Tensor]) -> ALLMRec:
    """Return the trained parts; `tensors` are those of items.safetensors: Q [I+1, S] and known [I+1].

    The networks are compared with the files first without any memory, so that a wrong size is an error of one
    line and not a full memory.
    """
    text_width = tensors["text_embeddings"].shape[1]
    with torch.device("meta"), reading(folder, "config.json"):
        expected = _networks(config, manifest, text_width)
    for name, network in expected._asdict().items():
        with reading(folder, f"{name}.safetensors", "use the allmrec that wrote it"):
            check_network(folder / f"{name}.safetensors", network)
    # Initial weights are drawn and thrown away: nobody else's draws may move.
    with torch.random.fork_rng(devices=[]):
        networks = _networks(config, manifest, text_width)
    for name, network in networks._asdict().items():
        with reading(folder, f"{name}.safetensors"):
            state = load_file(folder / f"{name}.safetensors")
            check_finite(state)
            network.load_state_dict(state)
    return ALLMRec(*networks, tensors["text_embeddings"], tensors["known"], config.stage2).eval()


def _networks(config: Config, manifest: Manifest, text_width: int) -> _Networks:
    """Return the untrained networks of a bundle."""
    width = config.cf.width
    inputs = item_input_width(config.stage2, width, config.stage1.width)
    return _Networks(
        build_cf_model(config.cf, manifest.cf_num_items, config.sequences.max_history),
        AlignmentNetworks(width, text_width, config.stage1),
        Projection(width, inputs, manifest.llm.width, 1.0, config.stage2),
    )

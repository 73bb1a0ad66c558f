"""Bundles on disk: save, load with every check, and the choice of the one that a night uses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from allmrec.bundle.bundle import ITEM_COLUMNS, Bundle
from allmrec.bundle.folder import verify_bundle, write_folder
from allmrec.config import Config
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.prompt import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import build_cf_model
from allmrec.models.projection import Projection, item_input_width
from allmrec.ranking.blend import BlendWeights


def save_bundle(root: Path, bundle: Bundle, extra: dict[str, Any]) -> str:
    """Write the bundle as `<root>/<bundle_id>` in one rename and return its id.

    `extra` is added to the manifest and is part of the hash: purpose, trained_before, figures, table and package versions. Raises
    SetupError when the disk does not take it.
    """
    return write_folder(
        root, None, lambda folder: write_parts(folder, bundle), _plain({**bundle.manifest, **extra})
    )["bundle_id"]


def load_bundle(folder: Path, llm: FrozenLLM | None) -> Bundle:
    """Load a bundle after checking every file, and that `llm`, where given, has the weights it was trained with.

    Raises BundleError that names the file or the LLM.
    """
    folder = Path(folder)
    manifest = verify_bundle(folder)
    if llm is not None:
        check_llm(manifest, llm)
    try:
        config = Config.model_validate_json((folder / "config.json").read_text(encoding="utf-8"))
    except ValidationError as error:
        raise BundleError(
            f"bundle {folder}: config.json does not fit this allmrec ({error.errors()[0]['loc']}); use the one that wrote it"
        ) from error
    tensors = load_file(folder / "items.safetensors")
    blends = json.loads((folder / "blend.json").read_text(encoding="utf-8"))
    encoder = folder / "text_encoder"
    return Bundle(
        manifest,
        config,
        pd.read_parquet(folder / "items.parquet"),
        _load_models(folder, config, manifest, tensors),
        TitleTokens(tensors["title_tokens"].numpy(), tensors["title_offsets"].numpy()),
        tensors["priors"].numpy() if "priors" in tensors else None,
        tensors["soft_items"],
        {name: BlendWeights.from_json(found) for name, found in blends.items()},
        folder,
        encoder if encoder.is_dir() else None,
    )


def select_bundle(manifests: Sequence[dict[str, Any]], run_date: date) -> dict[str, Any]:
    """Return the manifest of the newest serving bundle with trained_before ≤ run_date (ties: the latest created_at); never a child.

    Raises BundleError where there is none.
    """
    serving = [
        found for found in manifests if found.get("purpose") == "serving" and found.get("parent_id") is None
    ]
    old_enough = [found for found in serving if found["trained_before"] <= str(run_date)]
    if not old_enough:
        oldest = min((found["trained_before"] for found in serving), default=None)
        found = f"{len(serving)} trained before {oldest} or later" if serving else "none"
        raise BundleError(
            f"no serving bundle with trained_before ≤ {run_date}: found {found}; train one (allmrec train --run-date {run_date})"
        )
    return max(old_enough, key=lambda found: (found["trained_before"], found["created_at"]))


def check_llm(manifest: dict[str, Any], llm: FrozenLLM) -> None:
    """Raise BundleError where `llm` has other weights than the one the bundle was trained with (wherever they lie)."""
    trained = manifest["llm"]
    if trained["weight_hash"] != llm.weight_hash:
        raise BundleError(
            f"bundle {manifest['bundle_id']}: trained with the LLM {trained['name']} ({trained['weight_hash'][:12]}), found {llm.name} "
            f"({llm.weight_hash[:12]}); set llm.model to the former, or train with the latter"
        )


def write_parts(folder: Path, bundle: Bundle) -> None:
    """Write every file of the bundle but the manifest into an empty folder."""
    (folder / "config.json").write_text(bundle.config.model_dump_json(indent=1), encoding="utf-8")
    blends = {name: found.to_json() for name, found in bundle.blends.items()}
    (folder / "blend.json").write_text(json.dumps(blends, indent=1, sort_keys=True), encoding="utf-8")
    types = {"item_idx": "int32", "num_interactions": "int64"}
    bundle.items[ITEM_COLUMNS].astype(types).to_parquet(folder / "items.parquet", index=False)
    tensors = {
        "text_embeddings": bundle.text_embeddings.float(),
        "known": bundle.rec.known,
        "title_tokens": torch.from_numpy(bundle.titles.flat),
        "title_offsets": torch.from_numpy(bundle.titles.offsets),
        "soft_items": bundle.soft_items.float(),
    }
    if bundle.priors is not None:
        tensors["priors"] = torch.from_numpy(bundle.priors.astype(np.float32))
    _save_tensors(tensors, folder / "items.safetensors")
    for name, module in _modules(bundle.rec).items():
        _save_tensors(module.state_dict(), folder / f"{name}.safetensors")
    if bundle.text_encoder_folder is not None:
        shutil.copytree(bundle.text_encoder_folder, folder / "text_encoder")


def _modules(rec: ALLMRec) -> dict[str, nn.Module]:
    return {"cf": rec.cf, "stage1": rec.alignment, "stage2": rec.projection}


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _load_models(
    folder: Path, config: Config, manifest: dict[str, Any], tensors: dict[str, Tensor]
) -> ALLMRec:
    width, inputs = config.cf.width, item_input_width(config.stage2, config.cf.width, config.stage1.width)
    with torch.random.fork_rng(
        devices=[]
    ):  # initial weights are drawn and thrown away: nobody else's draws may move
        cf = build_cf_model(config.cf, manifest["cf_num_items"], config.sequences.max_history)
        alignment = AlignmentNetworks(width, tensors["text_embeddings"].shape[1], config.stage1)
        projection = Projection(width, inputs, manifest["llm"]["width"], 1.0, config.stage2)
    rec = ALLMRec(cf, alignment, projection, tensors["text_embeddings"], tensors["known"], config.stage2)
    for name, module in _modules(rec).items():
        try:
            module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        except RuntimeError as error:
            raise BundleError(
                f"bundle {folder}: {name}.safetensors does not fit this allmrec's networks; use the one that wrote it"
            ) from error
    return rec.eval()


def _plain(value: Any) -> Any:
    """Return what JSON can hold: NaN and infinite figures become null, NumPy numbers plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(found) for key, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(found) for found in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""Bundles between `tables.root` and this machine: list, select, fetch, store, and extend by tonight's new items."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pandas as pd

from allmrec.bundle import Bundle, extend_bundle, load_bundle, select_bundle
from allmrec.cache import cache_folder
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.text_encoder import TextEncoder
from allmrec.runtime.context import Context
from allmrec.tables import filesystem


def bundles_root(context: Context) -> str:
    """Return the folder that holds every bundle as `<bundle_id>/`."""
    return f"{context.config.tables.root.rstrip('/')}/_bundles"


def manifests(context: Context) -> list[dict]:
    """Return the manifest of every bundle under `tables.root`."""
    root = bundles_root(context)
    names = filesystem.list_folders(context.spark, root) if filesystem.exists(context.spark, root) else []
    found = []
    for name in names:
        path = f"{root}/{name}/manifest.json"
        if not name.startswith(".") and filesystem.exists(context.spark, path):
            found.append(json.loads(filesystem.read_text(context.spark, path)))
    return found


def choose_bundle(context: Context, run_date: date) -> dict:
    """Return the manifest of the bundle named by `scoring.bundle_id`, else the newest serving one that run_date may use (design §4.2)."""
    found, named = manifests(context), context.config.scoring.bundle_id
    if named is None:
        return select_bundle(found, run_date)
    for manifest in found:
        if manifest["bundle_id"] == named:
            return manifest
    raise BundleError(
        f"scoring.bundle_id: {named}, expected one of {', '.join(sorted(m['bundle_id'] for m in found)) or 'no bundle there'}"
    )


def fetch_bundle(context: Context, bundle_id: str) -> Path:
    """Return the local folder of a bundle; one that is not on this machine's disk is copied into the cache first."""
    uri = f"{bundles_root(context)}/{bundle_id}"
    if not filesystem.exists(context.spark, uri):
        raise BundleError(f"{uri}: no such bundle; train one (allmrec train)")
    local = Path(uri.removeprefix("file:"))
    if local.is_dir():
        return local
    local = cache_folder(context.config.llm) / "bundles" / bundle_id
    if not local.is_dir():
        filesystem.download(context.spark, uri, local)
    return local


def store_bundle(context: Context, folder: Path, bundle_id: str) -> None:
    """Copy a bundle's folder to `tables.root` in one rename; one that is already there is left as it is."""
    uri = f"{bundles_root(context)}/{bundle_id}"
    if not filesystem.exists(context.spark, uri):
        filesystem.upload(context.spark, folder, uri)


def bundle_of_night(context: Context, manifest: dict, llm: FrozenLLM) -> Bundle:
    """Return the chosen bundle, or its child that also knows the items added or reworded since (stored, so that a rerun finds it)."""
    parent = load_bundle(fetch_bundle(context, manifest["bundle_id"]), llm)
    good, _ = context.catalogue()
    catalogue = pd.DataFrame(good.select("item_id", "title", "description").toPandas()).sort_values(
        "item_id", ignore_index=True
    )
    cache = cache_folder(context.config.llm)
    encoder = TextEncoder.load(parent.config.text_encoder, cache, parent.text_encoder_folder)
    bundle = extend_bundle(parent, catalogue, encoder, llm, cache / "bundles")
    if bundle.bundle_id != parent.bundle_id:
        num_new = bundle.num_items - parent.num_items
        context.report(
            f"bundle {parent.bundle_id} extended to {bundle.bundle_id}: {num_new} new items, the rest reworded"
        )
        store_bundle(context, bundle.folder, bundle.bundle_id)
    return bundle

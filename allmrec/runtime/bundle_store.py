"""Bundles between `tables.root` and this machine: list, choose, fetch, store, extend."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd

from allmrec.bundle import Bundle, Manifest, extend_bundle, load_bundle, select_bundle
from allmrec.cache import cache_folder
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.text_encoder import TextEncoder
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.tables import filesystem


def manifests(context: Context) -> list[Manifest]:
    """Return the manifest of every bundle under `tables.root`; raises BundleError for one that is damaged."""
    root = _root(context)
    names = filesystem.list_folders(context.spark, root) if filesystem.exists(context.spark, root) else []
    paths = [f"{root}/{name}/manifest.json" for name in names if not name.startswith(".")]
    return [_read_manifest(context, path) for path in paths if filesystem.exists(context.spark, path)]


def choose_bundle(context: Context, run_date: date) -> Manifest:
    """Return the manifest of the bundle that a night uses.

    It is the one that `scoring.bundle_id` names, else the newest for serving that run_date may use. Raises
    BundleError where there is none.
    """
    known = manifests(context)
    return _named_bundle(context, known) or select_bundle(known, run_date)


def choose_evaluation_bundle(context: Context, run_date: date | None) -> Manifest:
    """Return the manifest of the bundle to evaluate.

    It is the one that `scoring.bundle_id` names, else the newest for evaluation. Raises BundleError, naming
    it, for a bundle that has seen the targets: one for serving, or, where `run_date` is given, one of another
    cut-off.
    """
    known = manifests(context)
    chosen = _named_bundle(context, known)
    if chosen is None:
        chosen = _newest_for_evaluation(known)
    elif chosen.purpose != "evaluation":
        raise BundleError(
            f"bundle {chosen.bundle_id}: trained for serving, so it has seen the targets; "
            "train one with --set training.purpose=evaluation"
        )
    if run_date is not None and chosen.trained_before != str(run_date):
        raise BundleError(
            f"bundle {chosen.bundle_id}: trained before {chosen.trained_before}, "
            f"expected {run_date}, the date to evaluate at"
        )
    return chosen


def fetch_bundle(context: Context, bundle_id: str) -> Path:
    """Return the local folder of a bundle.

    One that is not on this machine's disk is copied into the cache first. Raises BundleError where there is
    no such bundle.
    """
    uri = f"{_root(context)}/{bundle_id}"
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
    uri = f"{_root(context)}/{bundle_id}"
    if not filesystem.exists(context.spark, uri):
        filesystem.upload(context.spark, folder, uri)


def bundle_of_night(inputs: Inputs, manifest: Manifest, llm: FrozenLLM) -> Bundle:
    """Return the chosen bundle, or its child that also knows the items added or reworded since.

    The child is stored, so that a rerun finds it. Raises BundleError where the bundle is damaged, or of
    another LLM or catalogue.
    """
    context = inputs.context
    parent = load_bundle(fetch_bundle(context, manifest.bundle_id), llm)
    good, _ = inputs.catalogue()
    items: pd.DataFrame = good.select("item_id", "title", "description").toPandas()
    items = items.sort_values("item_id", ignore_index=True)
    cache = cache_folder(context.config.llm)
    encoder = TextEncoder.load(parent.config.text_encoder, cache, parent.text_encoder_folder)
    bundle = extend_bundle(parent, items, encoder, llm, cache / "bundles")
    if bundle.bundle_id != parent.bundle_id:
        num_new = bundle.num_items - parent.num_items
        context.report(
            f"bundle {parent.bundle_id} extended to {bundle.bundle_id}: "
            f"{num_new} new items, the rest reworded"
        )
        store_bundle(context, bundle.folder, bundle.bundle_id)
    return bundle


def _root(context: Context) -> str:
    """Return the folder that holds every bundle as `<bundle_id>/`."""
    return f"{context.config.tables.root.rstrip('/')}/_bundles"


def _read_manifest(context: Context, path: str) -> Manifest:
    try:
        return Manifest.from_json(filesystem.read_text(context.spark, path))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path}: no manifest of a bundle ({error}); copy or train the bundle again, or move it away"
        ) from error


def _named_bundle(context: Context, known: list[Manifest]) -> Manifest | None:
    """Return the bundle that `scoring.bundle_id` names, if any; raises BundleError where it is gone."""
    bundle_id = context.config.scoring.bundle_id
    if bundle_id is None:
        return None
    by_id = {manifest.bundle_id: manifest for manifest in known}
    if bundle_id not in by_id:
        expected = ", ".join(sorted(by_id)) or "no bundle there"
        raise BundleError(f"scoring.bundle_id: {bundle_id}, expected one of {expected}")
    return by_id[bundle_id]


def _newest_for_evaluation(known: list[Manifest]) -> Manifest:
    """Return the newest bundle for evaluation, never a child; raises BundleError where there is none."""
    trained = [
        manifest for manifest in known if manifest.purpose == "evaluation" and manifest.parent_id is None
    ]
    if not trained:
        serving = ", ".join(sorted(manifest.bundle_id for manifest in known)) or "none"
        raise BundleError(
            f"no bundle for evaluation (for serving: {serving}, which have seen the targets); "
            "train with --set training.purpose=evaluation"
        )
    return max(trained, key=lambda manifest: (manifest.trained_before, manifest.created_at))

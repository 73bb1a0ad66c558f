"""Bundles below `tables.root`: list, choose, fetch, store, extend."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.bundle import Manifest, check_llm, child_of, load_bundle, select_bundle, verify_bundle
from allmrec.bundle.extension import cached_child, check_shared, child_folder
from allmrec.bundle.folder import MANIFEST
from allmrec.cache import cache_folder
from allmrec.data import items as catalogue
from allmrec.errors import BundleError, ConfigError, UserError
from allmrec.llm.frozen import FrozenLLM, llm_weight_hash
from allmrec.models.text_encoder import TextEncoder
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Night
from allmrec.spark import filesystem
from allmrec.spark.literal_paths import read_parquet

_OF_ROWS = ("rating_range",)
"""Keys of `sequences` that decide which rows are good. A bundle knows the histories of any of them."""


class Known(NamedTuple):
    """The bundles below `tables.root`."""

    manifests: list[Manifest]
    damaged: dict[str, BundleError]
    """Errors of unusable manifests, by folder."""


def known_bundles(context: Context) -> Known:
    """Return the bundles below `tables.root`.

    Damaged manifests are skipped with a warning, so that a bundle that no night uses stops none.
    """
    root = _root(context)
    names = filesystem.list_folders(context.spark, root) if filesystem.exists(context.spark, root) else []
    known = Known([], {})
    # Names with a dot are temporary: a killed version 0.1.0 left `<bundle_id>.<uuid>.tmp`.
    for name in sorted(name for name in names if "." not in name):
        if filesystem.exists(context.spark, f"{root}/{name}/{MANIFEST}"):
            try:
                known.manifests.append(_read_manifest(context, f"{root}/{name}", name))
            except BundleError as error:
                known.damaged[name] = error
                context.warn_once(f"{error}; it is left out")
    return known


def manifests(context: Context) -> list[Manifest]:
    """Return the manifests of `known_bundles`."""
    return known_bundles(context).manifests


def choose_bundle(night: Night) -> Manifest:
    """Return the manifest of the bundle that a night uses.

    `bundle.id` names it; the default is the newest for serving that the date may use. Raises
    BundleError where there is none, ConfigError where it was trained with other settings of `sequences`.
    """
    context = night.context
    known = known_bundles(context)
    chosen = _named_bundle(context, known) or select_bundle(known.manifests, night.run_date)
    trained = _settings_of(context, chosen.bundle_id)
    check_settings(context, chosen.bundle_id, trained)
    check_mode(context, chosen.bundle_id, trained)
    return chosen


def choose_evaluation_bundle(context: Context, run_date: date | None) -> Manifest:
    """Return the manifest of the bundle to evaluate.

    `bundle.id` names it; the default is the newest for evaluation. Raises BundleError for a bundle
    that has seen the targets: a bundle for serving, or, if `run_date` is given, of another cut-off.
    """
    known = known_bundles(context)
    chosen = _named_bundle(context, known)
    if chosen is None:
        chosen = _newest_for_evaluation(known.manifests)
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
    check_mode(context, chosen.bundle_id, _settings_of(context, chosen.bundle_id))
    return chosen


def fetch_bundle(context: Context, bundle_id: str) -> Path:
    """Return the local folder of a bundle.

    A bundle of another file system is copied into the cache; a damaged copy is replaced. Raises BundleError
    where the bundle is missing.
    """
    uri = f"{_root(context)}/{bundle_id}"
    if not filesystem.exists(context.spark, f"{uri}/{MANIFEST}"):
        raise BundleError(f"{uri}: no such bundle; train one (allmrec train)")
    local = Path(uri.removeprefix("file:"))
    if local.is_dir():
        return local
    local = cache_folder(context.config.cache) / "bundles" / bundle_id
    if local.is_dir():
        try:
            verify_bundle(local)
            return local
        except BundleError:
            shutil.rmtree(local, ignore_errors=True)  # the cache is copied again
    return filesystem.download(context.spark, uri, local)


def store_bundle(context: Context, folder: Path, bundle_id: str) -> None:
    """Make a bundle's folder below `tables.root` equal to the local one.

    The manifest is written last and makes the folder a bundle. A damaged bundle is repaired. Equal files are
    not written again.
    """
    filesystem.publish_folder(context.spark, folder, f"{_root(context)}/{bundle_id}", last=MANIFEST)


def delete_bundle(context: Context, bundle_id: str) -> None:
    """Delete a bundle, here and in this machine's cache.

    The manifest is deleted first, so that a partly deleted bundle is not chosen.
    """
    uri = f"{_root(context)}/{bundle_id}"
    filesystem.delete(context.spark, f"{uri}/{MANIFEST}")
    filesystem.delete(context.spark, uri)
    cache = cache_folder(context.config.cache) / "bundles"
    # A copy has the bundle's id as its name; a child that was made here has its parent's id and a hash.
    for folder in (*cache.glob(bundle_id), *cache.glob(f"{bundle_id}-*"), *_children_in(cache, bundle_id)):
        shutil.rmtree(folder, ignore_errors=True)


def bundle_bytes(context: Context, bundle_id: str) -> int:
    """Return the bytes of a bundle below `tables.root`."""
    return filesystem.folder_bytes(context.spark, f"{_root(context)}/{bundle_id}")


def bundle_of_night(inputs: Inputs, manifest: Manifest, report: Report) -> tuple[Path, Manifest]:
    """Return folder and manifest of the chosen bundle, or its child.

    The child contains the items that were added or reworded since the training. The child is stored, so that
    a rerun finds it. This process loads bundle and LLM only to make a child. Raises BundleError where the
    bundle is damaged, or belongs to another LLM or catalogue.
    """
    context = inputs.context
    folder = fetch_bundle(context, manifest.bundle_id)
    verify_bundle(folder)
    require_llm(context, manifest.bundle_id, report)
    changed = changed_since_training(inputs, manifest)
    if changed.empty:
        return folder, manifest
    cache = cache_folder(context.config.cache)
    child = cached_child(child_folder(manifest.bundle_id, changed, cache / "bundles"), None)
    if child is None:
        parent = load_bundle(folder, None)
        encoder = TextEncoder.load(parent.config.text_encoder, cache, parent.text_encoder_folder)
        llm = FrozenLLM.load(context.config.llm, cache, report)
        child = child_of(parent, changed, encoder, llm, cache / "bundles")
    num_new = child.num_items - manifest.num_items
    report(
        f"bundle {manifest.bundle_id} extended to {child.bundle_id}: {num_new} new items, the rest reworded"
    )
    store_bundle(context, child.folder, child.bundle_id)
    return child.folder, child.manifest


def changed_since_training(inputs: Inputs, manifest: Manifest) -> pd.DataFrame:
    """Return the items that are new or reworded since the training.

    Workers hash the texts, so that only changed items come to this process. Raises BundleError as
    `changed_items` does.
    """
    good, _ = inputs.catalogue()
    trained = items_of_bundle(inputs.context, manifest.bundle_id)
    trained = trained.select("item_id", F.col("text_hash").alias("_trained"))
    both = good.select("item_id", "title", "description").join(trained, "item_id", "left")
    numbers = both.agg(F.count("_trained"), F.count(F.lit(1))).first()
    assert numbers is not None
    check_shared(manifest.bundle_id, manifest.num_items, *numbers)
    hashed = both.withColumn("text_hash", catalogue.text_hashes("title", "description"))
    is_known = F.coalesce(F.col("_trained") == F.col("text_hash"), F.lit(False))
    changed: pd.DataFrame = hashed.where(~is_known).drop("_trained").toPandas()
    return changed.sort_values("item_id", ignore_index=True)


def items_of_bundle(context: Context, bundle_id: str) -> DataFrame:
    """Return a bundle's items below `tables.root`: item_idx, item_id, text_hash and more."""
    return read_parquet(context.spark, f"{_root(context)}/{bundle_id}/items.parquet")


def require_llm(context: Context, bundle_id: str, report: Report) -> None:
    """Raise BundleError where the bundle was trained with another LLM. Fetches a missing LLM."""
    manifest = _read_manifest(context, f"{_root(context)}/{bundle_id}", bundle_id)
    settings = context.config.llm
    check_llm(manifest, settings.model, llm_weight_hash(settings, cache_folder(context.config.cache), report))


def check_settings(context: Context, bundle_id: str, settings: dict[str, Any]) -> None:
    """Raise ConfigError where `sequences` settings differ from those of the training.

    The bundle's CF model and blend fit such histories only.
    """
    trained = settings.get("sequences", {})
    for key, value in context.config.sequences.model_dump(mode="json").items():
        if key in trained and trained[key] != value and key not in _OF_ROWS:
            raise ConfigError(
                f"sequences.{key}: {value}, but bundle {bundle_id} was trained with {trained[key]}; "
                f"set sequences.{key} to that, or train a bundle with the new setting (allmrec train)"
            )


def check_mode(context: Context, bundle_id: str, settings: dict[str, Any]) -> None:
    """Raise ConfigError where the bundle was not trained for the section `scoring`.

    Free text needs a prompt that lists the candidates; q_i in place of e_i needs a projection that reads e_i.
    """
    scoring = context.config.scoring
    item_input = settings.get("stage2", {}).get("item_input")
    if scoring.soft_items == "text" and item_input not in (None, "joint", "joint_and_text"):
        raise ConfigError(
            f"scoring.soft_items: text, but bundle {bundle_id} was trained with stage2.item_input "
            f"{item_input}, which has no joint embedding to replace; train one with joint or joint_and_text"
        )
    layout = settings.get("prompt", {}).get("layout")
    if scoring.mode == "free" and layout == "no_list":
        raise ConfigError(
            f"scoring.mode: free, but bundle {bundle_id} was trained with prompt.layout no_list, which does "
            "not show the candidates to the LLM; train one with token_first, paper or authors"
        )


def _settings_of(context: Context, bundle_id: str) -> dict[str, Any]:
    """Return the settings of a bundle's training. Empty if they cannot be read.

    Loading a bundle that cannot be read raises an error with the file.
    """
    path = f"{_root(context)}/{bundle_id}/config.json"
    try:
        return dict(json.loads(filesystem.read_text(context.spark, path)))
    except (UserError, ValueError):
        return {}


def _children_in(cache: Path, bundle_id: str) -> list[Path]:
    """Return the folders of a cache with the child of this id."""
    mark = f'"bundle_id": "{bundle_id}"'
    found = cache.glob(f"*-*/{MANIFEST}")
    return [path.parent for path in found if mark in path.read_text(encoding="utf-8", errors="replace")]


def _root(context: Context) -> str:
    """Return the folder with every bundle as `<bundle_id>/`."""
    return f"{context.config.tables.root.rstrip('/')}/_bundles"


def _read_manifest(context: Context, folder: str, name: str) -> Manifest:
    """Return the manifest in a folder. Raises BundleError where it is damaged or of another bundle.

    The id is joined to paths, so that it must be the folder's own name.
    """
    path = f"{folder}/{MANIFEST}"
    try:
        manifest = Manifest.from_json(filesystem.read_text(context.spark, path))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path}: no manifest of a bundle ({error}); copy or train the bundle again, or move it away"
        ) from error
    if manifest.bundle_id != name:
        raise BundleError(
            f"{path}: the manifest of bundle {manifest.bundle_id}, expected that of {name}; "
            "give the folder the name of its bundle, or move it away"
        )
    return manifest


def _named_bundle(context: Context, known: Known) -> Manifest | None:
    """Return the bundle of `bundle.id`, or None if it is not set.

    Raises BundleError where the bundle is missing or damaged.
    """
    bundle_id = context.config.bundle.id
    if bundle_id is None:
        return None
    if bundle_id in known.damaged:
        raise known.damaged[bundle_id]
    by_id = {manifest.bundle_id: manifest for manifest in known.manifests}
    if bundle_id not in by_id:
        expected = ", ".join(sorted(by_id)) or "no bundle there"
        raise BundleError(f"bundle.id: {bundle_id}, expected one of {expected}")
    return by_id[bundle_id]


def _newest_for_evaluation(known: list[Manifest]) -> Manifest:
    """Return the newest bundle for evaluation, never a child. Raises BundleError where there is none."""
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

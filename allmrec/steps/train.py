"""interactions, items → snapshot → a trained bundle, immutable, under `<tables.root>/_bundles`."""

from __future__ import annotations

from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from allmrec.bundle import save_bundle
from allmrec.cache import cache_folder
from allmrec.config import Config, fingerprint
from allmrec.data.interactions import counted
from allmrec.data.rejection import merge_rejected
from allmrec.data.snapshot import write_snapshot
from allmrec.data.user_sequences import full_sequences
from allmrec.runtime.bundle_store import manifests, store_bundle
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.runs import StepRun, recorded
from allmrec.tables import filesystem
from allmrec.training.loader import Snapshot
from allmrec.training.pipeline import train_bundle

SECTIONS = ("seed", "sequences", "text_encoder", "cf", "stage1", "stage2", "training", "prompt", "candidates")
"""Sections of the configuration that decide what is trained."""
PACKAGES = ("torch", "transformers", "sentence-transformers", "pyspark", "delta-spark", "petastorm", "numpy")
"""Packages whose versions a bundle's manifest names."""


def run_train(context: Context, run_date: date) -> str:
    """Train on events before run_date, store the bundle and return its id.

    A bundle of the same inputs and settings is not trained again.
    """
    config, inputs = context.config, Inputs.newest(context)
    training_fingerprint = fingerprint(
        step="train",
        trained_before=str(run_date),
        settings=trained_settings(config),
        versions=dict(inputs.versions),
    )
    for manifest in manifests(context):
        if manifest.fingerprint == training_fingerprint and manifest.parent_id is None:
            context.report(f"train {run_date}: bundle {manifest.bundle_id} is already there, skipped")
            return manifest.bundle_id
    torch.set_num_threads(config.training.num_threads or torch.get_num_threads())
    # The part is called `mark` since version 0.1.0: another name would be another fingerprint.
    step_fingerprint = fingerprint(step="train", run_date=str(run_date), mark=training_fingerprint)
    with recorded(context, "train", run_date, step_fingerprint, inputs.versions) as run:
        # The folder outlives a killed run: the next one resumes there.
        folder = cache_folder(config.llm) / "training" / training_fingerprint
        with run.part("snapshot", "write the training data, pinned to the versions it came from"):
            snapshot = make_snapshot(inputs, run, run_date, training_fingerprint, folder)
        bundle, run.figures = train_bundle(snapshot, config, folder, run.report)
        with run.part("save", "write the bundle with a checksum for every file"):
            origin = bundle_origin(inputs, run_date, training_fingerprint, run.figures)
            run.bundle_id = save_bundle(folder / "bundle", bundle, origin)
            store_bundle(context, folder / "bundle" / run.bundle_id, run.bundle_id)
        run.report(f"bundle {run.bundle_id}")
        run.counts = {"users_in": snapshot.manifest["num_users"]}
    return run.bundle_id


def trained_settings(config: Config) -> dict[str, Any]:
    """Return the settings that decide what is trained."""
    settings = {section: getattr(config, section) for section in SECTIONS} | {"llm": config.llm.model}
    return settings | ({"evaluation": config.evaluation} if config.training.purpose == "evaluation" else {})


def make_snapshot(
    inputs: Inputs, run: StepRun, run_date: date, training_fingerprint: str, folder: Path
) -> Snapshot:
    """Write the snapshot of run_date below `<tables.root>` unless it is there; return its local copy."""
    context, config = inputs.context, inputs.context.config
    uri = f"{config.tables.root.rstrip('/')}/_snapshots/{training_fingerprint}"
    if not filesystem.exists(context.spark, f"{uri}/manifest.json"):
        log = inputs.good_interactions(run_date, run.keep)
        merge_rejected(context.tables, log.rejected, "train", context.run_id)
        sequences = full_sequences(counted(log.interactions, config.sequences), config.sequences)
        origin = {
            "cut_off": str(run_date),
            "table_versions": dict(inputs.versions),
            "fingerprint": training_fingerprint,
        }
        write_snapshot(sequences, log.items, inputs.seen(run_date), uri, config, origin)
    local = Path(uri.removeprefix("file:"))
    if not local.is_dir():
        local = folder / "snapshot"
        filesystem.download(context.spark, uri, local)
    return Snapshot(local)


def bundle_origin(
    inputs: Inputs, run_date: date, training_fingerprint: str, figures: dict[str, float]
) -> dict[str, Any]:
    """Return what a bundle's manifest says of its training.

    Durations are left out: the same training again is the same content, and so has the same bundle_id.
    """
    return {
        "purpose": inputs.context.config.training.purpose,
        "trained_before": str(run_date),
        "fingerprint": training_fingerprint,
        "figures": {name: value for name, value in figures.items() if not name.endswith("seconds")},
        "table_versions": dict(inputs.versions),
        "package_versions": {name: version(name) for name in PACKAGES},
    }

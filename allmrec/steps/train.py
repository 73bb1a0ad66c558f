"""interactions, items → snapshot → an immutable bundle under `<tables.root>/_bundles`."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from allmrec.bundle import save_bundle
from allmrec.cache import cache_folder, training_folder
from allmrec.data.interactions import counted
from allmrec.data.rejection import merge_rejected
from allmrec.data.snapshot import snapshot_uri, write_snapshot
from allmrec.data.user_sequences import first_sightings, ordered_events
from allmrec.errors import PassingError
from allmrec.llm.frozen import llm_weight_hash
from allmrec.runtime.bundle_store import manifests, store_bundle
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Night, Step, StepRun
from allmrec.runtime.processes import Processes
from allmrec.spark import filesystem
from allmrec.training.loader import Snapshot, can_be_read_at, petastorm_reader
from allmrec.training.pipeline import train_bundle
from allmrec.training.work import Work

CHECKPOINTS = "checkpoints"
"""Folder of a training's checkpoints, in its folder in the cache."""
PACKAGES = ("torch", "transformers", "sentence-transformers", "pyspark", "delta-spark", "petastorm", "numpy")
"""Packages whose versions a bundle's manifest contains."""


def run_train(night: Night) -> str:
    """Train on earlier events, store the bundle and return its id.

    A bundle of the same inputs and settings is not trained again. A killed training resumes from its last
    checkpoint, on the versions of the tables that it began with. Raises PassingError where another process of
    this machine trains the same, SetupError where petastorm is not installed.
    """
    night = night.with_resolved_dtype()
    inputs = Inputs.pinned(night, "train")
    step = step_of_training(night, inputs)
    context = night.context
    config = context.config
    for manifest in manifests(context):
        is_same = manifest.fingerprint == step.fingerprint and manifest.parent_id is None
        if is_same and not context.options.force:
            context.report(f"train {night.run_date}: bundle {manifest.bundle_id} is already there, skipped")
            return manifest.bundle_id
    petastorm_reader()  # a missing petastorm is reported before minutes of work
    processes = Processes.of(context.spark, config)
    torch.set_num_threads(config.training.num_threads or torch.get_num_threads())
    # The folder outlives a killed run, so that the next one resumes there.
    folder = training_folder(config.cache, context.tables.root, step.fingerprint)
    with alone_in(folder, context.run_id):
        with step.recorded(inputs.versions, inputs.table_ids) as run:
            if context.options.force:
                shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            with run.part("snapshot", "write the training data, pinned to the versions it came from"):
                snapshot = make_snapshot(inputs, step, run, folder)
            work = Work(snapshot, config, folder / CHECKPOINTS, run.report, processes)
            bundle, run.figures = train_bundle(work)
            with run.part("save", "write the bundle with a checksum for every file"):
                origin = bundle_origin(inputs, step, run.figures)
                run.bundle_id = save_bundle(folder / "bundle", bundle, origin)
                store_bundle(context, folder / "bundle" / run.bundle_id, run.bundle_id)
            run.report(f"bundle {run.bundle_id}")
            run.counts = {"users_in": snapshot.manifest["num_users"]}
        # Checkpoints are deleted, because the training has ended.
        shutil.rmtree(folder, ignore_errors=True)
    return run.bundle_id


def step_of_training(night: Night, inputs: Inputs) -> Step:
    """Return the step of a training. The hash of the LLM's weights is an input."""
    config = night.context.config
    weights = llm_weight_hash(config.llm, cache_folder(config.cache), night.context.report)
    return night.step("train", llm=weights, versions=dict(inputs.versions), table_ids=dict(inputs.table_ids))


@contextmanager
def alone_in(folder: Path, run_id: str) -> Iterator[None]:
    """Lock a training's folder against other processes of this machine.

    Raises PassingError, with the run at work, where the folder is locked. The lock ends with its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PassingError(
                f"train: run {lock.read().strip() or '?'} trains the same in {folder}; wait for it"
            ) from None
        lock.truncate(0)
        lock.write(run_id)
        lock.flush()
        yield


def make_snapshot(inputs: Inputs, step: Step, run: StepRun, folder: Path) -> Snapshot:
    """Write the training's snapshot, if it is missing; return its local copy."""
    context = inputs.context
    config = context.config
    uri = snapshot_uri(context.tables.root, step.fingerprint)
    if not filesystem.exists(context.spark, f"{uri}/manifest.json"):
        log = inputs.good_interactions(step.night.run_date, run.keep)
        merge_rejected(context.tables, log.rejected, "train", context.run_id)
        inputs.require_good_rows(log)
        events = ordered_events(counted(log.interactions, config.sequences), config.sequences)
        origin = {
            "cut_off": str(step.night.run_date),
            "table_versions": dict(inputs.versions),
            "table_ids": dict(inputs.table_ids),
            "fingerprint": step.fingerprint,
        }
        # Another machine may train the same. Each writes a snapshot of its own, and the first one counts.
        partial = snapshot_uri(context.tables.root, f".{step.fingerprint}-{context.run_id}")
        write_snapshot(events, log.items, first_sightings(log.rows), partial, config, origin)
        filesystem.rename_new(context.spark, partial, uri)
    local = Path(uri.removeprefix("file:"))
    if not local.is_dir() or not can_be_read_at(local):
        local = folder / "snapshot"
        filesystem.download(context.spark, uri, local)
    return Snapshot(local)


def bundle_origin(inputs: Inputs, step: Step, figures: dict[str, float]) -> dict[str, Any]:
    """Return a training's part of a bundle's manifest.

    Durations are omitted, so that the same training again has the same content and bundle_id.
    """
    return {
        "purpose": inputs.context.config.training.purpose,
        "trained_before": str(step.night.run_date),
        "fingerprint": step.fingerprint,
        "figures": {name: value for name, value in figures.items() if not name.endswith("seconds")},
        "table_versions": dict(inputs.versions),
        "table_ids": dict(inputs.table_ids),
        "package_versions": {name: version(name) for name in PACKAGES},
    }

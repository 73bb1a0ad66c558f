"""interactions, items → snapshot → CF model → stage 1 → stage 2 → blend → one immutable bundle under `<tables.root>/_bundles`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from allmrec.bundle import Bundle, assemble_bundle, save_bundle
from allmrec.cache import cache_folder
from allmrec.config import Config, fingerprint
from allmrec.data.interactions import before, counted
from allmrec.data.snapshot import write_snapshot
from allmrec.data.user_sequences import full_sequences, seen_items
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.prompt import PromptLayout, TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.text_encoder import TextEncoder, item_text
from allmrec.runtime.bundle_store import manifests, store_bundle
from allmrec.runtime.context import Context, Stopwatch
from allmrec.runtime.runs import Outcome, record
from allmrec.scoring.scorer import item_priors
from allmrec.steps.sequences import good_interactions, reject
from allmrec.tables import filesystem
from allmrec.training.blend import fit_blends
from allmrec.training.cf import train_cf
from allmrec.training.loader import Snapshot
from allmrec.training.stage1 import Stage1Result, train_stage1
from allmrec.training.stage2.through_llm import train_stage2

SECTIONS = ("seed", "sequences", "text_encoder", "cf", "stage1", "stage2", "training", "prompt", "candidates")
PACKAGES = ("torch", "transformers", "sentence-transformers", "pyspark", "delta-spark", "petastorm", "numpy")


def run_train(context: Context, run_date: date) -> str:
    """Train on events before run_date and store the bundle; return its id. A bundle of the same inputs and settings is not trained again."""
    config = context.config
    settings = {section: getattr(config, section) for section in SECTIONS} | {"llm": config.llm.model}
    if config.training.purpose == "evaluation":
        settings["evaluation"] = config.evaluation
    mark = fingerprint(
        step="train", trained_before=str(run_date), settings=settings, versions=context.versions
    )
    for manifest in manifests(context):
        if manifest.get("fingerprint") == mark and manifest.get("parent_id") is None:
            context.report(f"train {run_date}: bundle {manifest['bundle_id']} is already there, skipped")
            return manifest["bundle_id"]
    torch.set_num_threads(config.training.num_threads or torch.get_num_threads())
    stored: list[str] = []

    def work(watch: Stopwatch) -> Outcome:
        folder = (
            cache_folder(config.llm) / "training" / mark
        )  # outlives a killed run: the next one resumes there
        with watch("snapshot", "write the training data, pinned to the versions it came from"):
            snapshot = make_snapshot(context, run_date, mark, folder)
        bundle, figures = train_bundle(snapshot, config, folder, watch)
        with watch("save", "write the bundle with a checksum for every file"):
            # Without durations: the same training again is the same content, so the same bundle_id.
            lasting = {name: value for name, value in figures.items() if not name.endswith("seconds")}
            extra = {"purpose": config.training.purpose, "trained_before": str(run_date), "fingerprint": mark, "figures": lasting,
                     "table_versions": context.versions, "package_versions": {name: version(name) for name in PACKAGES}}  # fmt: skip
            bundle_id = save_bundle(folder / "bundle", bundle, extra)
            store_bundle(context, folder / "bundle" / bundle_id, bundle_id)
        stored.append(bundle_id)
        context.report(f"train {run_date}: bundle {bundle_id}")
        return Outcome(
            figures=figures, bundle_id=bundle_id, counts={"users_in": snapshot.manifest["num_users"]}
        )

    record(context, "train", run_date, None, work, mark=mark)
    return stored[0]


def make_snapshot(context: Context, run_date: date, mark: str, folder: Path) -> Snapshot:
    """Write the snapshot of run_date under `<tables.root>/_snapshots` unless it is there, and return it as a local folder."""
    config, uri = context.config, f"{context.config.tables.root.rstrip('/')}/_snapshots/{mark}"
    if not filesystem.exists(context.spark, f"{uri}/manifest.json"):
        good, items, rejected = good_interactions(context, run_date)
        reject(context, "train", rejected)
        log = counted(good, config.sequences)
        seen = seen_items(before(context.require("interactions"), run_date))
        extra = {"cut_off": str(run_date), "table_versions": context.versions, "fingerprint": mark}
        write_snapshot(full_sequences(log, config.sequences), items, seen, uri, config, extra)
    local = Path(uri.removeprefix("file:"))
    if not local.is_dir():
        local = folder / "snapshot"
        filesystem.download(context.spark, uri, local)
    return Snapshot(local)


@dataclass
class _Texts:
    encoder: TextEncoder
    embeddings: np.ndarray
    """[I+1, S] float32, row 0 zeros."""


def train_bundle(
    snapshot: Snapshot, config: Config, folder: Path, watch: Stopwatch
) -> tuple[Bundle, dict[str, float]]:
    """Train every part on a snapshot and return the bundle (not saved yet) and its figures. Needs no Spark."""
    items, report = snapshot.items(), watch.report
    with watch("llm", f"load the frozen LLM {config.llm.model}"):
        llm = FrozenLLM.load(config.llm, report)
    with watch("texts", f"embed {len(items):,} titles and descriptions"):
        texts = _embed(items, config)
    with watch("cf", f"train {config.cf.model} on who had what"):
        cf, figures = train_cf(snapshot, config, folder / "cf", report)
    with watch("stage 1", "align what users did with what titles say"):
        stage1 = train_stage1(
            snapshot, cf, texts.encoder, texts.embeddings, config, folder / "stage1", report
        )
    layout = PromptLayout.of(config.prompt, llm)
    titles = layout.tokenise_titles(items["title"].tolist(), config.prompt.title_tokens)
    priors = _priors(llm, layout, titles, config, watch)
    with watch("stage 2", "teach the projections to speak to the LLM"):
        rec = _compose(cf, stage1, items, llm, config)
        found = train_stage2(snapshot, rec, llm, layout, titles, priors, config, folder / "stage2", report)
    figures = (
        {f"cf_{k}": v for k, v in figures.items()}
        | {f"stage1_{k}": v for k, v in stage1.figures.items()}
        | {f"stage2_{k}": v for k, v in found.items()}
    )
    bundle = assemble_bundle(rec, config, items, titles, priors, llm, texts.encoder, stage1.encoder_folder)
    with watch("blend", "fit the served order on held-back items"):
        bundle.blends, found = fit_blends(bundle, snapshot, llm, config, report)
    return bundle, figures | found


def _embed(items, config: Config) -> _Texts:  # type: ignore[no-untyped-def]
    encoder = TextEncoder.load(config.text_encoder, cache_folder(config.llm))
    found = encoder.encode(
        [item_text(title, text) for title, text in zip(items["title"], items["description"], strict=True)]
    )
    return _Texts(encoder, np.vstack([np.zeros((1, found.shape[1]), np.float32), found]))


def _priors(
    llm: FrozenLLM, layout: PromptLayout, titles: TitleTokens, config: Config, watch: Stopwatch
) -> np.ndarray | None:
    if config.prompt.layout != "no_list" or not config.prompt.subtract_prior:
        return None
    with watch("priors", "ask the LLM how likely each title is by itself"):
        found = item_priors(
            llm, layout, titles, range(1, titles.num_items + 1), config.scoring.token_budget, watch.report
        )
    return np.concatenate([np.zeros(1, np.float32), found])


def _compose(cf, stage1: Stage1Result, items, llm: FrozenLLM, config: Config) -> ALLMRec:  # type: ignore[no-untyped-def]
    known = torch.zeros(len(items) + 1, dtype=torch.bool)
    known[1:] = torch.from_numpy((items["num_interactions"] > 0).to_numpy())
    return ALLMRec.create(
        cf, stage1.networks, torch.from_numpy(stage1.text_embeddings), known, llm, config.stage2, config.seed
    )

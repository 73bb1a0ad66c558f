"""The training of a bundle on a snapshot, without Spark: CF model → stage 1 → stage 2 → blend."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allmrec.bundle import (
    AlignmentState,
    Bundle,
    CFState,
    ProjectionState,
    State,
    TitleState,
    assemble_bundle,
    save_bundle,
)
from allmrec.cache import cache_folder
from allmrec.config import Config
from allmrec.errors import ConfigError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.title_states import title_states
from allmrec.llm.tokens import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import CFModel
from allmrec.models.item_features import standardised
from allmrec.models.text_encoder import TextEncoder
from allmrec.reporting import Report
from allmrec.training.catalogue import embed_catalogue
from allmrec.training.cf import train_cf
from allmrec.training.order import fit_order
from allmrec.training.stage1 import train_stage1
from allmrec.training.stage2 import START, PromptParts, train_stage2
from allmrec.training.work import Launch, Work


@dataclass(frozen=True)
class AlignedParts:
    """What is trained and frozen after stage 1."""

    cf: CFModel
    networks: AlignmentNetworks
    text_embeddings: Tensor
    """Q, [I+1, S] float32."""
    encoder_folder: Path | None = None
    """The fine-tuned sentence encoder; None: the one that config names."""


def train_bundle(work: Work) -> tuple[Bundle, dict[str, float]]:
    """Train every part on a snapshot and return the bundle (not saved yet) and its figures.

    With `work.launch` several processes train the CF model, and the projections through the LLM.

    Checkpoints lie in `work.folder`: called again after a kill, with the same snapshot and settings, the
    training goes on from them. Figures are named by their part: `cf_…`, `stage1_…`, `stage2_…`, `blend_…`.
    Raises InputError where no user has two interactions, SetupError where a model or petastorm cannot be
    loaded, ConfigError where several processes are asked for and there is no `launch`.
    """
    snapshot, config, report = work.snapshot, work.config, work.report
    if work.launch is None and config.training.processes > 1:
        raise ConfigError(
            f"training.processes: {config.training.processes}, but Spark starts them, and here is none; "
            "expected 1"
        )
    items = snapshot.items()
    with report.part("llm", f"load the frozen LLM {config.llm.model}"):
        llm = FrozenLLM.load(config.llm, cache_folder(config.cache), report)
    with report.part("texts", f"embed {len(items):,} titles and descriptions"):
        encoder = TextEncoder.load(config.text_encoder, cache_folder(config.cache))
        text_embeddings = embed_catalogue(encoder, items)
    with report.part("cf", f"train {config.cf.model} on who had what"):
        features = {"text": torch.from_numpy(text_embeddings)}
        if config.cf.item_init == "states":
            states = title_states(llm, items["title"].tolist(), config.prompt.title_tokens, report)
            features["states"] = standardised(states)
        cf, cf_figures = train_cf(work.part("cf"), features)
    with report.part("stage 1", "align what users did with what titles say"):
        stage1 = train_stage1(work.part("stage1"), cf, encoder, text_embeddings)
    parts = AlignedParts(cf, stage1.networks, torch.from_numpy(stage1.text_embeddings), stage1.encoder_folder)
    bundle, later_figures = train_on_aligned(work, parts, encoder, llm)
    figures = {"cf": cf_figures, "stage1": stage1.figures}
    named = {f"{part}_{name}": value for part, own in figures.items() for name, value in own.items()}
    return bundle, named | later_figures


def train_on_aligned(
    work: Work, parts: AlignedParts, encoder: TextEncoder, llm: FrozenLLM
) -> tuple[Bundle, dict[str, float]]:
    """Train what comes after stage 1, which is all that the prompt decides; else as `train_bundle`."""
    snapshot, config, report = work.snapshot, work.config, work.report
    items, layout = snapshot.items(), PromptLayout.of(config.prompt, llm)
    titles = layout.tokenise_titles(items["title"].tolist(), config.prompt.title_tokens)
    priors = _priors(llm, layout, titles, config, report)
    with report.part("stage 2", "teach the projections to speak to the LLM"):
        known = torch.from_numpy(snapshot.known_items())
        rec = ALLMRec.create(
            parts.cf, parts.networks, parts.text_embeddings, known, llm, config.stage2, config.seed
        )
        aligned: dict[str, State] = {
            "cf": CFState(parts.cf, known),
            "stage1": AlignmentState.of(parts.networks, parts.text_embeddings, parts.encoder_folder),
            "titles": TitleState(titles, priors),
        }

        def assemble() -> Bundle:
            states = {**aligned, "stage2": ProjectionState.of(rec)}
            return assemble_bundle(states, config, items, llm, encoder)

        own = work.part("stage2")
        launch = own.launch and partial(_launch_stage2, own.launch, assemble, own)
        stage2_figures = train_stage2(own, rec, llm, PromptParts(layout, titles, priors), launch)
    bundle = assemble()
    with report.part("blend", "fit the served order on held-back items"):
        order, blend_figures = fit_order(work, bundle, llm)
    return bundle.with_order(order), {
        f"stage2_{name}": value for name, value in stage2_figures.items()
    } | blend_figures


def _launch_stage2(launch: Launch, assemble: Callable[[], Bundle], work: Work) -> None:
    """Leave the bundle as it is now, after the warm start, in the folder, and let processes train it."""
    shutil.rmtree(work.folder / START, ignore_errors=True)
    save_bundle(work.folder / START, assemble(), {})
    launch("stage2", work)


def _priors(
    llm: FrozenLLM, layout: PromptLayout, titles: TitleTokens, config: Config, report: Report
) -> np.ndarray | None:
    """Return each title's log-probability by itself, [I+1] float32 nats; None where none is subtracted."""
    if config.prompt.layout != "no_list" or not config.prompt.subtract_prior:
        return None
    with report.part("priors", "ask the LLM how likely each title is by itself"):
        return item_priors(llm, layout, titles, None, config.llm.token_budget, report)

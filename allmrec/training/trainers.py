"""Trainers: the training of each part of a bundle, and the states that it needs.

The needs decide the order of the trainings. A trainer returns the state for the bundle
(`allmrec.bundle.states`), and figures by their names in the manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec.bundle import (
    AlignmentState,
    Bundle,
    CFState,
    FittedOrder,
    LinkState,
    ProjectionState,
    State,
    TitleState,
    assemble_bundle,
    save_bundle,
)
from allmrec.bundle.states import state_of
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.title_states import title_states
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.item_features import standardised
from allmrec.models.text_encoder import TextEncoder
from allmrec.training.cf import train_cf, train_cf_share
from allmrec.training.group import Group
from allmrec.training.links import count_links
from allmrec.training.order.fit_order import fit_order
from allmrec.training.stage1 import train_stage1
from allmrec.training.stage2 import START, PromptParts, train_stage2, train_stage2_share
from allmrec.training.work import Launch, Work

States = Mapping[str, State]


@dataclass(frozen=True)
class FrozenModels:
    """The models that trainings leave unchanged, and the texts' embeddings."""

    llm: FrozenLLM
    encoder: TextEncoder
    items: pd.DataFrame
    """The catalogue, as `Snapshot.items` returns it."""
    text_embeddings: np.ndarray
    """Q, [I+1, S] float32, row 0 zeros."""

    def assembled(self, work: Work, states: States) -> Bundle:
        """Return the unsaved bundle of states."""
        return assemble_bundle(states, work.config, self.items, self.llm, self.encoder)


Train = Callable[[Work, FrozenModels, States], tuple[State, dict[str, float]]]
"""`train(work, models, states)` returns the state and the figures.

`states` are the states trained so far, and `work` has the folder of the part.
"""


@dataclass(frozen=True)
class Trainer:
    """The training of a part."""

    train: Train
    needs: tuple[str, ...] = ()
    """Names of the states that it reads. They are trained before it."""
    is_last: bool = False
    """Whether it reads a whole bundle. All others are trained before it."""
    share: Callable[[Work, Group], None] | None = None
    """The training in one of several processes (`allmrec.training.process`). None: one process trains."""


def _cf(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    """Train the CF model."""
    config = work.config
    report = work.report
    with report.part("cf", f"train {config.cf.model} on who had what"):
        features: dict[str, Tensor] = {"text": torch.from_numpy(models.text_embeddings)}
        if config.cf.item_init == "states":
            titles = models.items["title"].tolist()
            features["states"] = standardised(
                title_states(models.llm, titles, config.prompt.title_tokens, report)
            )
        model, figures = train_cf(work, features)
    return CFState(model, model.known), _named("cf", figures)


def _stage1(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    """Train the alignment networks, and the sentence encoder if it is tuned."""
    cf = state_of(states, CFState).model
    with work.report.part("stage 1", "align what users did with what titles say"):
        found = train_stage1(work, cf, models.encoder, models.text_embeddings)
    embeddings = torch.from_numpy(found.text_embeddings)
    state = AlignmentState.of(found.networks, embeddings, found.encoder_folder)
    return state, _named("stage1", found.figures)


def _titles(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    """Tokenise the titles. If priors are subtracted, the LLM reads each title by itself."""
    prompt = work.config.prompt
    llm = models.llm
    layout = PromptLayout.of(prompt, llm)
    titles = layout.tokenise_titles(models.items["title"].tolist(), prompt.title_tokens)
    if prompt.layout != "no_list" or not prompt.subtract_prior:
        return TitleState(titles, None), {}
    with work.report.part("priors", "ask the LLM how likely each title is by itself"):
        priors = item_priors(llm, layout, titles, None, work.config.llm.token_budget, work.report)
    return TitleState(titles, priors), {}


def _stage2(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    """Train the projections."""
    config = work.config
    llm = models.llm
    cf = state_of(states, CFState)
    alignment = state_of(states, AlignmentState)
    titles = state_of(states, TitleState)
    prompt = PromptParts(PromptLayout.of(config.prompt, llm), titles.titles, titles.priors)
    with work.report.part("stage 2", "teach the projections to speak to the LLM"):
        texts = alignment.text_embeddings
        rec = ALLMRec.create(cf.model, alignment.networks, texts, cf.known, llm, config.stage2, config.seed)
        launch = work.launch and partial(_launch_stage2, work.launch, work, models, states, rec)
        figures = train_stage2(work, rec, llm, prompt, launch)
    return ProjectionState.of(rec), _named("stage2", figures)


def _launch_stage2(launch: Launch, work: Work, models: FrozenModels, states: States, rec: ALLMRec) -> None:
    """Save the bundle after the warm start in the folder, and let processes train it."""
    start = work.folder / START
    shutil.rmtree(start, ignore_errors=True)
    now = {**states, ProjectionState.name: ProjectionState.of(rec)}
    save_bundle(start, models.assembled(work, now), {})
    launch(ProjectionState.name, work)


def _links(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    """Count the links between items."""
    with work.report.part("links", "count words of titles and items that users had together"):
        return LinkState(count_links(work.snapshot, models.items)), {}


def _order(work: Work, models: FrozenModels, states: States) -> tuple[State, dict[str, float]]:
    """Fit the weights of retrieval and order."""
    bundle = models.assembled(work, states)
    with work.report.part("blend", "fit the served order on held-back items"):
        return fit_order(work, bundle, models.llm)


def _named(part: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Return a part's figures by their names in the manifest."""
    return {f"{part}_{name}": value for name, value in figures.items()}


TRAINERS: dict[str, Trainer] = {
    CFState.name: Trainer(_cf, share=train_cf_share),
    AlignmentState.name: Trainer(_stage1, needs=("cf",)),
    TitleState.name: Trainer(_titles),
    ProjectionState.name: Trainer(_stage2, needs=("cf", "stage1", "titles"), share=train_stage2_share),
    LinkState.name: Trainer(_links),
    FittedOrder.name: Trainer(_order, is_last=True),
}
"""Trainers by the names of their states."""


def training_order() -> list[str]:
    """Return the names of `TRAINERS`, each after the states that it needs.

    Otherwise they stand in the order of the table. Raises ValueError where a needed state has no trainer, or
    two trainers need each other.
    """
    names: list[str] = []
    left = sorted(TRAINERS, key=lambda name: TRAINERS[name].is_last)
    while left:
        ready = [name for name in left if set(TRAINERS[name].needs) <= set(names)]
        if not ready:
            raise ValueError(f"trainers {', '.join(left)} need what is not trained before them")
        names.append(ready[0])
        left.remove(ready[0])
    return names

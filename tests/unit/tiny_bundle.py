"""A tiny bundle of real parts with random weights, a tiny LLM, and the packaged sentence encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

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
)
from allmrec.config import Config
from allmrec.item_text import item_text
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.tokens import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import build_cf_model
from allmrec.models.links import Links, Vocabulary, together
from allmrec.models.text_encoder import TextEncoder
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.decision import Decision
from tests.tiny_models import make_tiny_llm

NOUNS = (
    "tent",
    "sleeping bag",
    "gas stove",
    "head torch",
    "rain jacket",
    "hiking socks",
    "water bottle",
    "folding chair",
)
COLOURS = ("red", "blue", "green", "black", "white")
NUM_UNKNOWN = 6
"""Items at the end of the catalogue that nobody had in training."""


PRIOR = {"cf": 1.0, "text": 0.3, "alignment": 0.5, "llm": 0.1}
"""The blend's weights before any user was looked at, temperature included."""


def blend(prior: dict[str, float]) -> BlendWeights:
    """Return the blend that nobody was fitted on."""
    total = sum(prior.values())
    return BlendWeights({part: weight / total for part, weight in prior.items()}, 0.0, 1.0 / total, 0)


def tiny_catalogue(num_items: int = 30) -> pd.DataFrame:
    """Items 1..num_items as a snapshot has them; the last ones have no interactions."""
    numbers = range(1, num_items + 1)
    titles = [f"{COLOURS[number % len(COLOURS)]} {NOUNS[number % len(NOUNS)]} {number}" for number in numbers]
    return pd.DataFrame({
        "item_idx": np.arange(1, num_items + 1, dtype=np.int32),
        "item_id": [f"i{number:03d}" for number in numbers],
        "title": titles,
        "description": [
            f"A good {title}." if number % 2 else "" for number, title in zip(numbers, titles, strict=True)
        ],
        "categories": [[] for _ in numbers],
        "num_interactions": [0 if number > num_items - NUM_UNKNOWN else 1 + number % 9 for number in numbers],
    })  # fmt: skip


@lru_cache
def tiny_llm(folder: Path, seed: int = 0) -> FrozenLLM:
    """A random two-layer Llama in float32, on the CPU."""
    place = make_tiny_llm(folder / f"llm{seed}", seed=seed)
    return FrozenLLM.load(
        Config().llm.model_copy(update={"model": str(place), "dtype": "float32", "device": "cpu"}),
        folder / "cache",
    )


@lru_cache
def tiny_encoder(folder: Path) -> TextEncoder:
    """The packaged sentence encoder, its cache in `folder`."""
    return TextEncoder.load(Config().text_encoder, folder / "cache")


def tiny_config(layout: str = "no_list", cf_model: str = "sasrec") -> Config:
    """Defaults with small widths."""
    config = Config()
    return config.model_copy(update={
        "cf": config.cf.model_copy(update={"width": 16, "model": cf_model}),
        "stage1": config.stage1.model_copy(update={"width": 24}),
        "sequences": config.sequences.model_copy(update={"max_history": 8}),
        "prompt": config.prompt.model_copy(update={"layout": layout}),
        "scoring": config.scoring.model_copy(update={"order": "blend_with_llm"}),
    })  # fmt: skip


def tiny_links(titles: list[str]) -> Links:
    """Links of titles 1..I; every third item was had together with the next one."""
    size = len(titles) + 1
    older = np.arange(1, size - 1, 3)
    pairs = sparse.csr_matrix((np.ones(len(older)), (older, older + 1)), shape=(size, size))
    return Links.of(Vocabulary.of(titles), titles, together(pairs + pairs.T, np.ones(size)))


def states_of(rec: ALLMRec, titles: TitleTokens, priors: np.ndarray | None) -> dict[str, State]:
    """Return the states of A-LLMRec's parts, by name."""
    states = (
        CFState(rec.cf, rec.known),
        AlignmentState.of(rec.alignment, rec.text_embeddings),
        TitleState(titles, priors),
        ProjectionState.of(rec),
    )
    return {state.name: state for state in states}


def tiny_bundle(
    folder: Path, num_items: int = 30, layout: str = "no_list", cf_model: str = "sasrec"
) -> Bundle:
    """A bundle that was not saved yet; `folder` keeps the LLM and the caches."""
    config, items, llm, encoder = (
        tiny_config(layout, cf_model),
        tiny_catalogue(num_items),
        tiny_llm(folder),
        tiny_encoder(folder),
    )
    text = encoder.encode([item_text(*row) for row in zip(items["title"], items["description"], strict=True)])
    embeddings = torch.from_numpy(np.vstack([np.zeros((1, text.shape[1]), np.float32), text]))
    known = torch.zeros(num_items + 1, dtype=torch.bool)
    known[1:] = torch.from_numpy((items["num_interactions"] > 0).to_numpy())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cf = build_cf_model(config.cf, num_items, config.sequences.max_history)
        cf.set_known(known)
        rec = ALLMRec.create(
            cf,
            AlignmentNetworks(config.cf.width, text.shape[1], config.stage1),
            embeddings,
            known,
            llm,
            config.stage2,
        )
    prompt_layout = PromptLayout.of(config.prompt, llm)
    titles = prompt_layout.tokenise_titles(items["title"].tolist(), config.prompt.title_tokens)
    priors = None
    if not prompt_layout.lists_candidates:
        priors = item_priors(llm, prompt_layout, titles, None, config.llm.token_budget)
    bundle = assemble_bundle(states_of(rec, titles, priors), config, items, llm, encoder)
    without = {part: weight for part, weight in PRIOR.items() if part != "llm"}
    blends = {"with_llm": blend(PRIOR), "without_llm": blend(without)}
    bundle = bundle.with_state(LinkState(tiny_links(items["title"].tolist())))
    return bundle.with_state(FittedOrder(None, blends, Decision("blend_with_llm", (), 0)))

"""A bundle in memory: the item index, and the states of the trained parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from allmrec.bundle.contents import ITEM_COLUMNS
from allmrec.bundle.manifest import EncoderIdentity, LLMIdentity, Manifest
from allmrec.bundle.states.alignment_state import AlignmentState
from allmrec.bundle.states.cf_state import CFState
from allmrec.bundle.states.link_state import LinkState
from allmrec.bundle.states.order_state import FittedOrder
from allmrec.bundle.states.projection_state import ProjectionState, composed
from allmrec.bundle.states.state import S, State, state_of
from allmrec.bundle.states.title_state import TitleState
from allmrec.config import Config
from allmrec.item_text import text_hash
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.tokens import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.links import Links
from allmrec.models.text_encoder import TextEncoder
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.decision import Decision
from allmrec.ranking.search_weights import SearchWeights


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    item_idx 1..I is dense in order of item_id (a child's new items come after its parent's); 0 is padding.
    """

    manifest: Manifest
    config: Config
    items: pd.DataFrame
    """Columns of items.parquet, sorted by item_idx."""
    states: Mapping[str, State]
    """The trained parts, by the names of `STATES`."""
    folder: Path = Path()
    """Where it was loaded from; empty before it was saved."""

    def state(self, kind: type[S]) -> S:
        """Return the state of a kind; raises KeyError where the bundle has none."""
        return state_of(self.states, kind)

    def with_state(self, state: State) -> Bundle:
        """Return the unsaved bundle with another state of its kind."""
        return replace(self, states={**self.states, state.name: state})

    @property
    def bundle_id(self) -> str:
        """Hash of the content; empty for a bundle that was not saved yet."""
        return self.manifest.bundle_id

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.items)

    @cached_property
    def index(self) -> dict[str, int]:
        """item_id → item_idx."""
        return dict(zip(self.items["item_id"], self.items["item_idx"].tolist(), strict=True))

    @cached_property
    def text_hash_of_item(self) -> dict[str, str]:
        """item_id → `text_hash` of its title and description."""
        return dict(zip(self.items["item_id"], self.items["text_hash"], strict=True))

    @cached_property
    def rec(self) -> ALLMRec:
        """A-LLMRec, composed of the states of the CF model and of both stages."""
        return composed(self.states, self.state(ProjectionState).projection, self.config.stage2)

    @property
    def known(self) -> np.ndarray:
        """Bool [I+1]: items the CF model was trained on."""
        return self.rec.known.cpu().numpy()

    @property
    def text_embeddings(self) -> Tensor:
        """Q, float32 [I+1, S]."""
        return self.state(AlignmentState).text_embeddings

    @property
    def text_centre(self) -> Tensor | None:
        """Mean q of the training's items, float32 [J]; None: a bundle of earlier versions."""
        return self.state(AlignmentState).text_centre

    @property
    def text_encoder_folder(self) -> Path | None:
        """The fine-tuned sentence encoder; None: the one that config names."""
        return self.state(AlignmentState).encoder_folder

    @property
    def titles(self) -> TitleTokens:
        """The titles' tokens."""
        return self.state(TitleState).titles

    @property
    def priors(self) -> np.ndarray | None:
        """Float32 [I+1], nats; None where the layout subtracts none."""
        return self.state(TitleState).priors

    @property
    def soft_items(self) -> Tensor:
        """O_i, float32 [I+1, H]; row 0 zeros."""
        return self.state(ProjectionState).soft_items

    @property
    def links(self) -> Links | None:
        """The links between items; None in bundles of earlier versions."""
        return self.state(LinkState).links if LinkState.name in self.states else None

    @property
    def order(self) -> FittedOrder:
        """The weights of retrieval and order, empty before the fit."""
        return self.state(FittedOrder) if FittedOrder.name in self.states else FittedOrder()

    @property
    def search(self) -> SearchWeights | None:
        """The weights of the search; None before the fit."""
        return self.order.search

    @property
    def blends(self) -> Mapping[str, BlendWeights]:
        """`with_llm` and `without_llm`, as far as they were fitted."""
        return self.order.blends

    @property
    def decision(self) -> Decision | None:
        """The decision about the LLM for `scoring.order: auto`. None: the LLM is asked."""
        return self.order.decision


def assemble_bundle(
    states: Mapping[str, State],
    config: Config,
    items: pd.DataFrame,
    llm: FrozenLLM,
    encoder: TextEncoder,
) -> Bundle:
    """Return a bundle of trained parts, not saved yet.

    `items` has item_idx (1..I, sorted), item_id, title, description, num_interactions.
    """
    table = items.assign(text_hash=text_hashes(items))[ITEM_COLUMNS].reset_index(drop=True)
    # Where tables lie and which device computes is no part of a model: the same training elsewhere has the
    # same bundle_id.
    fields = Config.model_fields
    everywhere = ("tables", "importing", "publish", "bundle", "cache", "spark")
    portable = config.model_copy(update={name: fields[name].default for name in everywhere})
    llm_anywhere = config.llm.model_copy(update={"device": "auto"})
    portable = portable.model_copy(update={"llm": llm_anywhere})
    tuned = state_of(states, AlignmentState).encoder_folder
    if tuned is not None:  # what was tuned has another content than what it began as
        encoder = TextEncoder.load(config.text_encoder, encoder.cache, tuned)
    manifest = Manifest(
        llm=LLMIdentity(llm.name, llm.weight_hash, llm.width),
        text_encoder=EncoderIdentity(config.text_encoder.model, encoder.content_hash),
        num_items=len(table),
        cf_num_items=state_of(states, CFState).model.num_items,
    )
    return Bundle(manifest, portable, table, states)


def texts_of(items: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (title, description) of every item; a missing description is empty."""
    descriptions = [text if isinstance(text, str) else "" for text in items["description"]]
    return list(zip(items["title"], descriptions, strict=True))


def text_hashes(items: pd.DataFrame) -> list[str]:
    """Return `text_hash` of every item; `items` has title and description."""
    return [text_hash(title, description) for title, description in texts_of(items)]

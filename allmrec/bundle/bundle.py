"""A bundle in memory: trained parts, the item index, and what scoring would otherwise compute per user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec.bundle.contents import ITEM_COLUMNS
from allmrec.bundle.manifest import EncoderIdentity, LLMIdentity, Manifest
from allmrec.bundle.states.order_state import FittedOrder
from allmrec.config import Config
from allmrec.item_text import text_hash
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.tokens import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
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
    rec: ALLMRec
    titles: TitleTokens
    priors: np.ndarray | None
    """Float32 [I+1], nats; None where the layout subtracts none."""
    soft_items: Tensor
    """O_i, float32 [I+1, H]; row 0 zeros."""
    text_centre: Tensor | None = None
    """Mean q of the items of the training, float32 [J]: likeness by text is the cosine around it. A child has
    its parent's, so that new items move no score of the others. None: the mean of the bundle's own items
    (bundles of earlier versions)."""
    order: FittedOrder = field(default_factory=FittedOrder)
    """What it retrieves and orders by."""
    folder: Path = Path()
    """Where it was loaded from; empty before it was saved."""
    text_encoder_folder: Path | None = None
    """The fine-tuned sentence encoder; None: the one that config names."""

    @property
    def bundle_id(self) -> str:
        """Hash of the content; empty for a bundle that was not saved yet."""
        return self.manifest.bundle_id

    @property
    def search(self) -> SearchWeights | None:
        """The weights of the search; None where they were not fitted."""
        return self.order.search

    @property
    def blends(self) -> Mapping[str, BlendWeights]:
        """`with_llm` and `without_llm`, as far as they were fitted."""
        return self.order.blends

    @property
    def decision(self) -> Decision | None:
        """Whether the LLM is asked under `scoring.order: auto`; None: it is."""
        return self.order.decision

    def with_order(self, order: FittedOrder) -> Bundle:
        """Return the bundle with other weights; it is not saved yet."""
        return replace(self, order=order)

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

    @property
    def known(self) -> np.ndarray:
        """Bool [I+1]: items the CF model was trained on."""
        return self.rec.known.cpu().numpy()

    @property
    def text_embeddings(self) -> Tensor:
        """Q, float32 [I+1, S]."""
        return self.rec.text_embeddings


def assemble_bundle(
    rec: ALLMRec,
    config: Config,
    items: pd.DataFrame,
    titles: TitleTokens,
    priors: np.ndarray | None,
    llm: FrozenLLM,
    encoder: TextEncoder,
    encoder_folder: Path | None = None,
) -> Bundle:
    """Return a bundle of trained parts, not saved yet and without blends.

    `items` has item_idx (1..I, sorted), item_id, title, description, num_interactions; `encoder_folder` is a
    fine-tuned encoder's.
    """
    table = items.assign(text_hash=text_hashes(items))[ITEM_COLUMNS].reset_index(drop=True)
    # Where tables lie and which device computes is no part of a model: the same training elsewhere has the
    # same bundle_id.
    fields, everywhere = Config.model_fields, ("tables", "importing", "publish", "bundle", "cache", "spark")
    portable = config.model_copy(update={name: fields[name].default for name in everywhere})
    llm_anywhere = config.llm.model_copy(update={"device": "auto"})
    portable = portable.model_copy(update={"llm": llm_anywhere})
    if encoder_folder is not None:  # what was tuned has another content than what it began as
        encoder = TextEncoder.load(config.text_encoder, encoder.cache, encoder_folder)
    manifest = Manifest(
        llm=LLMIdentity(llm.name, llm.weight_hash, llm.width),
        text_encoder=EncoderIdentity(config.text_encoder.model, encoder.content_hash),
        num_items=len(table),
        cf_num_items=rec.cf.num_items,
    )
    with torch.no_grad():
        soft_items = rec.soft_items().detach().float()
        text_centre = rec.text_centre()
    return Bundle(
        manifest,
        portable,
        table,
        rec,
        titles,
        priors,
        soft_items,
        text_centre,
        text_encoder_folder=encoder_folder,
    )


def texts_of(items: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (title, description) of every item; a missing description is empty."""
    descriptions = [text if isinstance(text, str) else "" for text in items["description"]]
    return list(zip(items["title"], descriptions, strict=True))


def text_hashes(items: pd.DataFrame) -> list[str]:
    """Return `text_hash` of every item; `items` has title and description."""
    return [text_hash(title, description) for title, description in texts_of(items)]

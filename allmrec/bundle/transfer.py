"""A bundle in another shop: none of its items was seen in training, their texts are all that is known."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from allmrec.bundle.bundle import Bundle, text_hashes, texts_of
from allmrec.bundle.contents import ITEM_COLUMNS
from allmrec.bundle.extension import cached_child, check_encoder
from allmrec.bundle.folder import write_folder
from allmrec.bundle.states import NewItems, child_states
from allmrec.bundle.store import check_llm, load_bundle, write_parts
from allmrec.item_text import item_text
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.text_encoder import TextEncoder


def transferred_bundle(
    bundle: Bundle, catalogue: pd.DataFrame, encoder: TextEncoder, llm: FrozenLLM, cache_root: Path
) -> Bundle:
    """Return a child of the bundle that holds another shop's items in place of its own.

    `catalogue` has item_id, title, description. An item has q_i and no e_i (A-LLMRec, section 5.3.4). What
    its CF model reads of a history is f_dec^I(q_i), the vectors that the alignment would decode for such
    items; as candidates it does not know them. The child lies in `cache_root`. Raises BundleError where
    encoder or LLM are not the bundle's.
    """
    check_llm(bundle.manifest, llm.name, llm.weight_hash)
    check_encoder(bundle, encoder)
    items = catalogue.sort_values("item_id", ignore_index=True)
    items = items.assign(
        item_idx=np.arange(1, len(items) + 1, dtype=np.int32),
        num_interactions=0,
        text_hash=text_hashes(items),
    )
    content = hashlib.sha256("".join(items["item_id"] + items["text_hash"]).encode()).hexdigest()
    folder = cache_root / f"{bundle.bundle_id}-in-{content[:16]}"
    cached = cached_child(folder, llm)
    if cached is not None:
        return cached
    embeddings = torch.from_numpy(encoder.encode([item_text(*text) for text in texts_of(items)]))
    typed = items[ITEM_COLUMNS].astype(bundle.items.dtypes.to_dict())
    everything = typed["item_idx"].tolist()
    new = NewItems(typed, everything, embeddings, bundle.config, llm, bundle.states, {})
    states = child_states(new, lambda state, new: state.transferred(new))
    manifest = replace(bundle.manifest.of_child(len(items)), cf_num_items=len(items))
    child = Bundle(manifest, bundle.config, typed, states)
    write_folder(cache_root, folder.name, lambda partial: write_parts(partial, child), manifest)
    return load_bundle(folder, llm)

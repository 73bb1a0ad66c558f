"""Items added or reworded since training: a cached child bundle, so that nothing is trained again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from allmrec.bundle.bundle import Bundle, text_hashes, texts_of
from allmrec.bundle.contents import ITEM_COLUMNS
from allmrec.bundle.folder import write_folder
from allmrec.bundle.states import NewItems, child_states
from allmrec.bundle.store import check_llm, load_bundle, write_parts
from allmrec.errors import BundleError
from allmrec.item_text import item_text
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.text_encoder import TextEncoder


def extend_bundle(
    bundle: Bundle, catalogue: pd.DataFrame, encoder: TextEncoder, llm: FrozenLLM | None, cache_root: Path
) -> Bundle:
    """Return a child with the catalogue's new items and the new texts of reworded ones, or `bundle` itself.

    `catalogue` has item_id, title, description. Existing items keep item_idx and e_i; new ones get I+1, I+2 …
    in order of item_id and are unknown to the CF model. q_i, title tokens, prior and soft token come from the
    text. The child lies in `cache_root`, named by its parent and the content of what changed; `llm` may be
    None where it is there already. Items that left the catalogue stay: the retriever is told what is
    available. Raises BundleError where less than half of the items are shared, or encoder or LLM are not the
    bundle's.
    """
    changed = changed_items(bundle, catalogue)
    return bundle if changed.empty else child_of(bundle, changed, encoder, llm, cache_root)


def child_of(
    bundle: Bundle, changed: pd.DataFrame, encoder: TextEncoder, llm: FrozenLLM | None, cache_root: Path
) -> Bundle:
    """Return the child with these items, which `changed_items` found; see `extend_bundle`.

    Raises BundleError where encoder or LLM are not the bundle's.
    """
    if llm is not None:
        check_llm(bundle.manifest, llm.name, llm.weight_hash)
    folder = child_folder(bundle.bundle_id, changed, cache_root)
    cached = cached_child(folder, llm)
    if cached is not None:
        return cached
    if llm is None:
        raise BundleError(
            f"bundle {bundle.bundle_id}: {len(changed):,} items are new or reworded, "
            "expected the LLM to read their titles; load it"
        )
    check_encoder(bundle, encoder)
    child = _child(bundle, changed, encoder, llm)

    def write(partial: Path) -> None:
        write_parts(partial, child)
        # The parent's own text: settings that are new since it was written do not change its children's ids.
        shutil.copy(bundle.folder / "config.json", partial / "config.json")

    write_folder(cache_root, folder.name, write, child.manifest)
    return load_bundle(folder, llm)


def child_folder(bundle_id: str, changed: pd.DataFrame, cache_root: Path) -> Path:
    """Return where the child of a bundle lies that has these changed items (item_id, text_hash)."""
    texts = json.dumps(changed[["item_id", "text_hash"]].to_numpy().tolist())
    return cache_root / f"{bundle_id}-{hashlib.sha256(texts.encode()).hexdigest()[:16]}"


def cached_child(folder: Path, llm: FrozenLLM | None) -> Bundle | None:
    """Return the child that was made before; None where there is none, or one that must be made again.

    Damaged children are deleted, and those of an earlier version, whose texts had a centre of their own.
    """
    if not folder.is_dir():
        return None
    try:
        child = load_bundle(folder, llm)
        if child.text_centre is not None:
            return child
    except BundleError:
        pass
    shutil.rmtree(folder)
    return None


def check_encoder(bundle: Bundle, encoder: TextEncoder) -> None:
    """Raise BundleError where the sentence encoder is not the one that the bundle was trained with."""
    if encoder.content_hash != bundle.manifest.text_encoder.content_hash:
        raise BundleError(
            f"bundle {bundle.bundle_id}: the sentence encoder is another one than it was trained with; "
            "set text_encoder.model to that"
        )


def changed_items(bundle: Bundle, catalogue: pd.DataFrame) -> pd.DataFrame:
    """Return the items of the catalogue that are new or reworded since training, with their text_hash.

    They stand in order of item_id. Raises BundleError where less than half of the items are shared.
    """
    catalogue = catalogue.reset_index(drop=True).assign(text_hash=text_hashes(catalogue))
    num_shared = int(catalogue["item_id"].isin(bundle.index).sum())
    check_shared(bundle.bundle_id, bundle.num_items, num_shared, len(catalogue))
    known_hash = catalogue["item_id"].map(bundle.items.set_index("item_id")["text_hash"])
    changed = catalogue[known_hash != catalogue["text_hash"]]
    return changed.sort_values("item_id", ignore_index=True)


def check_shared(bundle_id: str, num_items: int, num_shared: int, num_in_catalogue: int) -> None:
    """Raise BundleError where less than half of a bundle's items, or of the catalogue's, are in both."""
    if 2 * num_shared < max(num_items, num_in_catalogue):
        raise BundleError(
            f"bundle {bundle_id}: {num_shared:,} of its {num_items:,} items are among the "
            f"catalogue's {num_in_catalogue:,}, expected at least half of each; "
            "train a bundle on this catalogue (allmrec train)"
        )


def _child(bundle: Bundle, changed: pd.DataFrame, encoder: TextEncoder, llm: FrozenLLM) -> Bundle:
    """Return the child in memory; `changed` are the new and reworded items."""
    items = _grown_items(bundle, changed)
    index = dict(zip(items["item_id"], items["item_idx"].tolist(), strict=True))
    changed_idx = [index[item] for item in changed["item_id"]]
    texts = [item_text(*text) for text in texts_of(changed)]
    embeddings = torch.from_numpy(encoder.encode(texts))
    new = NewItems(items, changed_idx, embeddings, bundle.config, llm, bundle.states, {})
    states = child_states(new, lambda state, new: state.extended(new))
    manifest = bundle.manifest.of_child(len(items))
    return Bundle(manifest, bundle.config, items, states)


def _grown_items(bundle: Bundle, changed: pd.DataFrame) -> pd.DataFrame:
    """Return the table of items with the new ones at its end and the texts of reworded ones replaced."""
    new = changed[~changed["item_id"].isin(bundle.index)]
    first = bundle.num_items + 1
    new = new.assign(item_idx=np.arange(first, first + len(new), dtype=np.int32), num_interactions=0)
    typed = new[ITEM_COLUMNS].astype(bundle.items.dtypes.to_dict())
    items = pd.concat([bundle.items, typed], ignore_index=True)
    row_of_item = dict(zip(items["item_id"], items.index, strict=True))
    rows = [row_of_item[item] for item in changed["item_id"]]
    for column in ("title", "text_hash"):
        items.loc[rows, column] = changed[column].to_numpy()
    return items

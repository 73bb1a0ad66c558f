"""Items added or reworded since training: a cached child bundle, so that they can be recommended tonight without training again."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from allmrec.bundle.bundle import ITEM_COLUMNS, Bundle, text_hashes, texts_of
from allmrec.bundle.folder import write_folder
from allmrec.bundle.store import check_llm, load_bundle, write_parts
from allmrec.errors import BundleError
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import item_priors
from allmrec.llm.prompt import PromptLayout, TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.text_encoder import TextEncoder, item_text


def extend_bundle(
    bundle: Bundle, catalogue: pd.DataFrame, encoder: TextEncoder, llm: FrozenLLM | None, cache_root: Path
) -> Bundle:
    """Return a child of `bundle` with the catalogue's new items and the new text of reworded ones, or `bundle` where there are none.

    `catalogue` has item_id, title, description. Existing items keep item_idx and e_i, new ones get I+1, I+2 … in order of item_id and are
    unknown to the CF model; q_i, title tokens, prior and soft token come from the text. The child lies in `cache_root`, named by its parent
    and the content of what changed; `llm` may be None where it is there already. Items that left the catalogue stay (the retriever is
    told what is available). Raises BundleError where less than half of the items are shared, or encoder or LLM are not the bundle's.
    """
    if llm is not None:
        check_llm(bundle.manifest, llm)
    catalogue = catalogue.reset_index(drop=True).assign(text_hash=text_hashes(catalogue))
    idx = catalogue["item_id"].map(bundle.index)
    shared = int(idx.notna().sum())
    if 2 * shared < max(bundle.num_items, len(catalogue)):
        raise BundleError(
            f"bundle {bundle.bundle_id}: {shared:,} of its {bundle.num_items:,} items are among the catalogue's {len(catalogue):,}, "
            "expected at least half of each; train a bundle on this catalogue (allmrec train)"
        )
    known_hash = catalogue["item_id"].map(bundle.items.set_index("item_id")["text_hash"])
    changed = catalogue[known_hash != catalogue["text_hash"]].sort_values("item_id", ignore_index=True)
    if changed.empty:
        return bundle
    key = hashlib.sha256(
        json.dumps(changed[["item_id", "text_hash"]].to_numpy().tolist()).encode()
    ).hexdigest()[:16]
    name = f"{bundle.bundle_id}-{key}"
    folder = cache_root / name
    if folder.is_dir():
        try:
            return load_bundle(folder, llm)
        except BundleError:
            shutil.rmtree(folder)  # a cache: what is damaged is made again
    if llm is None:
        raise BundleError(
            f"bundle {bundle.bundle_id}: {len(changed):,} items are new or reworded, expected the LLM to read their titles; load it"
        )
    if encoder.content_hash != bundle.manifest["text_encoder"]["content_hash"]:
        raise BundleError(
            f"bundle {bundle.bundle_id}: the sentence encoder is another one than it was trained with; set text_encoder.model to that"
        )
    child = _child(bundle, changed, encoder, llm)
    write_folder(cache_root, name, lambda place: write_parts(place, child), child.manifest)
    return load_bundle(folder, llm)


def _child(bundle: Bundle, changed: pd.DataFrame, encoder: TextEncoder, llm: FrozenLLM) -> Bundle:
    new = changed[~changed["item_id"].isin(bundle.index)]
    added = new.assign(
        item_idx=np.arange(bundle.num_items + 1, bundle.num_items + 1 + len(new), dtype=np.int32),
        num_interactions=0,
    )
    items = pd.concat(
        [bundle.items, added[ITEM_COLUMNS].astype(bundle.items.dtypes.to_dict())], ignore_index=True
    )
    index = dict(zip(items["item_id"], items["item_idx"].tolist(), strict=True))
    places = [index[item] for item in changed["item_id"]]
    at = torch.tensor(places)
    for column in ("title", "text_hash"):
        items.loc[at.numpy() - 1, column] = changed[column].to_numpy()

    embeddings = _grown(bundle.text_embeddings, len(items) + 1)
    embeddings[at] = torch.from_numpy(encoder.encode([item_text(*text) for text in texts_of(changed)]))
    known = _grown(bundle.rec.known, len(items) + 1)
    old = bundle.rec
    rec = ALLMRec(old.cf, old.alignment, old.projection, embeddings, known, old.settings)
    soft_items = _grown(bundle.soft_items, len(items) + 1)
    with torch.no_grad():
        soft_items[at] = rec.soft_items(at).detach().float()

    layout = PromptLayout.of(bundle.config.prompt, llm)
    read = layout.tokenise_titles(changed["title"].tolist(), bundle.config.prompt.title_tokens)
    rows = [bundle.titles.of(idx) for idx in range(bundle.num_items + 1)] + [[] for _ in range(len(new))]
    for number, idx in enumerate(places, start=1):
        rows[idx] = read.of(number)
    lengths = [0, *(len(row) for row in rows)]
    flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=sum(lengths))
    titles = TitleTokens(flat, np.cumsum(lengths, dtype=np.int64))
    priors = None
    if bundle.priors is not None:
        priors = np.concatenate([bundle.priors, np.zeros(len(new), dtype=np.float32)])
        priors[places] = item_priors(llm, layout, titles, places, bundle.config.scoring.token_budget)
    manifest = {
        key: value
        for key, value in bundle.manifest.items()
        if key not in ("bundle_id", "created_at", "files")
    }
    manifest |= {"parent_id": bundle.bundle_id, "num_items": len(items)}
    return replace(
        bundle,
        manifest=manifest,
        items=items,
        rec=rec,
        titles=titles,
        priors=priors,
        soft_items=soft_items,
        folder=Path(),
    )


def _grown(rows: Tensor, number: int) -> Tensor:
    grown = rows.new_zeros((number, *rows.shape[1:]))
    grown[: len(rows)] = rows
    return grown

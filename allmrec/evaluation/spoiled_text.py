"""Catalogues with bad texts, which show how much an alignment needs them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from allmrec import seeds

NO_TITLE = "untitled"
"""Title of an item without a text, because an empty title is refused."""
LOST_WORDS = 0.2
"""Share of the words that a noisy text loses."""
MISSPELLED_WORDS = 0.3
"""Share of the other words with two neighbouring letters exchanged."""


def spoiled(catalogue: pd.DataFrame, text: str, share: float, seed: int) -> pd.DataFrame:
    """Return the catalogue with some texts spoiled.

    `catalogue` has item_id, title, description. `text` is `noisy` (words are lost and misspelled) or
    `missing` (every such item is `untitled`, without a description). The seed and the item's id decide which
    items, and how.
    """
    spoil: Callable[[str, np.random.Generator], str] = {"noisy": noisy, "missing": _missing}[text]
    titles = []
    descriptions = []
    for item, title, description in catalogue[["item_id", "title", "description"]].itertuples(index=False):
        rng = seeds.generator(seed, "spoiled text", item)
        if rng.random() < share:
            title = spoil(title, rng)
            description = "" if text == "missing" or not description else noisy(description, rng)
        titles.append(title)
        descriptions.append(description)
    return catalogue.assign(title=titles, description=descriptions)


def noisy(text: str, rng: np.random.Generator) -> str:
    """Return a text with some words lost and some misspelled. At least one word stays."""
    words = text.split()
    is_kept = rng.random(len(words)) >= LOST_WORDS
    if not is_kept.any():
        is_kept[:1] = True
    kept = [word for word, stays in zip(words, is_kept, strict=True) if stays]
    is_wrong = rng.random(len(kept)) < MISSPELLED_WORDS
    return " ".join(
        _misspelled(word, rng) if wrong else word for word, wrong in zip(kept, is_wrong, strict=True)
    )


def _misspelled(word: str, rng: np.random.Generator) -> str:
    """Return a word with two neighbouring letters exchanged."""
    if len(word) < 2:
        return word
    place = int(rng.integers(len(word) - 1))
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _missing(title: str, rng: np.random.Generator) -> str:
    return NO_TITLE

"""The catalogue's texts and their embeddings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from allmrec.item_text import item_text
from allmrec.models.text_encoder import TextEncoder


def catalogue_texts(items: pd.DataFrame) -> list[str]:
    """Return what the sentence encoder reads of each item of `Snapshot.items()`, in their order."""
    return [
        item_text(title, description)
        for title, description in zip(items["title"], items["description"], strict=True)
    ]


def embed_catalogue(encoder: TextEncoder, items: pd.DataFrame) -> np.ndarray:
    """Return Q [I+1, S] float32: the embeddings of the items of `Snapshot.items()`, row 0 (padding) zeros."""
    embeddings_IS = encoder.encode(catalogue_texts(items))
    return np.vstack([np.zeros((1, embeddings_IS.shape[1]), np.float32), embeddings_IS])

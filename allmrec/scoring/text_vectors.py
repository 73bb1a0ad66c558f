"""The embeddings of candidates' texts, as re-rankers read them."""

from __future__ import annotations

import numpy as np

from allmrec.bundle import Bundle
from allmrec.ranking.candidate_lists import CandidateLists


def text_vectors(bundle: Bundle, lists: CandidateLists) -> np.ndarray:
    """Return Q_i of every candidate, [B, C, S] float32, zeros beyond a user's candidates.

    Raises KeyError for a candidate that the bundle lacks.
    """
    items_N = [bundle.index[item] for item in lists.ids[lists.present]]
    vectors_NS = bundle.text_embeddings[items_N].float().cpu().numpy()
    vectors_BCS = np.zeros((*lists.ids.shape, vectors_NS.shape[1]), dtype=np.float32)
    vectors_BCS[lists.present] = vectors_NS
    return vectors_BCS

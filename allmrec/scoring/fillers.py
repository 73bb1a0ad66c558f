"""Fillers: the parts of a score that neither retrieval nor the LLM computes, a function each.

A new part is an entry of `allmrec.parts.PARTS` and its function in `FILLERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from allmrec.bundle import Bundle
from allmrec.models.links import HISTORY, Links
from allmrec.parts import LINKS
from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.scoring.user_vectors import left_padded

PAIRS = 8192
"""Users' and candidates' soft tokens that are compared at a time: [PAIRS, H] float32, twice."""


@dataclass(frozen=True)
class Users:
    """B users, as fillers take them."""

    bundle: Bundle
    histories: Sequence[Sequence[int]]
    """The known items of every history by item_idx, oldest first, [B]."""
    soft_BH: Tensor
    """O_u, [B, H] float32."""
    soft_items: Tensor
    """O_i by item_idx, [I + 1, H]."""


@dataclass(frozen=True)
class Filler:
    """Computes a part."""

    of_pairs: Callable[[Users, np.ndarray, np.ndarray], np.ndarray]
    """(users, rows [N] int64, item_idx [N] int64) → the part of each pair, [N] float64; NaN: not known."""
    of_catalogue: Callable[[Users], np.ndarray] | None = None
    """Users → the part of every item, [B, I] float64; None: `of_pairs` of all pairs."""


def filled_parts(
    users: Users, candidates: Sequence[Sequence[int]], lists: CandidateLists
) -> dict[str, np.ndarray]:
    """Return the fillers' parts of lists by name, [B, C] float64; `candidates` are by item_idx."""
    items_N = np.array([idx for items in candidates for idx in items], dtype=np.int64)
    rows_N = np.repeat(np.arange(len(candidates)), [len(items) for items in candidates])
    return {name: lists.spread(filler.of_pairs(users, rows_N, items_N)) for name, filler in FILLERS.items()}


def filled_catalogue(users: Users, lists: CandidateLists) -> dict[str, np.ndarray]:
    """Return the fillers' parts of lists of the whole catalogue by name, [B, I] float64."""
    return {name: _of_catalogue(filler, users, lists.ids.shape) for name, filler in FILLERS.items()}


def _of_catalogue(filler: Filler, users: Users, shape: tuple[int, ...]) -> np.ndarray:
    """Return a filler's part of every item, [B, I] float64."""
    if filler.of_catalogue is not None:
        return filler.of_catalogue(users)
    rows_BI, columns_BI = np.indices(shape)
    return filler.of_pairs(users, rows_BI.ravel(), columns_BI.ravel() + 1).reshape(shape)


def popularity(users: Users, rows_N: np.ndarray, items_N: np.ndarray) -> np.ndarray:
    """Return the items' interactions in training, [N] float64."""
    return users.bundle.items["num_interactions"].to_numpy(dtype=np.float64)[items_N - 1]


@torch.inference_mode()
def alignment(users: Users, rows_N: np.ndarray, items_N: np.ndarray) -> np.ndarray:
    """Return cos(O_u, O_i), [N] float64; 0 for a user without any history that the bundle knows."""
    if not len(items_N):
        return np.zeros(0)
    device = users.soft_items.device
    row_N = torch.from_numpy(rows_N).to(device)
    item_N = torch.from_numpy(items_N).to(device)
    cosine_N = torch.cat([
        nn.functional.cosine_similarity(users.soft_BH[rows], users.soft_items[items].float(), dim=1)
        for rows, items in zip(row_N.split(PAIRS), item_N.split(PAIRS), strict=True)
    ])  # fmt: skip
    return np.where(_have_history(users)[rows_N], cosine_N.double().cpu().numpy(), 0.0)


@torch.inference_mode()
def alignment_of_catalogue(users: Users) -> np.ndarray:
    """Return the same for every item, [B, I] float64, by one matrix product."""
    users_BH = nn.functional.normalize(users.soft_BH, dim=1)
    items_IH = nn.functional.normalize(users.soft_items[1:].float(), dim=1)
    cosine_BI = (users_BH @ items_IH.T).double().cpu().numpy()
    return np.where(_have_history(users)[:, None], cosine_BI, 0.0)


def links_of_pairs(name: str) -> Callable[[Users, np.ndarray, np.ndarray], np.ndarray]:
    """Return the function of pairs for a signal of `allmrec.models.links`; NaN: the bundle has no links."""

    def of_pairs(users: Users, rows_N: np.ndarray, items_N: np.ndarray) -> np.ndarray:
        if users.bundle.links is None:
            return np.full(len(rows_N), np.nan)
        if not len(rows_N):
            return np.zeros(0)
        return _linked(users.bundle.links, users, name)[rows_N, items_N].A1.astype(np.float64)

    return of_pairs


def links_of_catalogue(name: str) -> Callable[[Users], np.ndarray]:
    """Return the function of all items for a signal of `allmrec.models.links`; NaN: there are no links."""

    def of_catalogue(users: Users) -> np.ndarray:
        if users.bundle.links is None:
            return np.full((len(users.histories), users.bundle.num_items), np.nan)
        return _linked(users.bundle.links, users, name)[:, 1:].toarray().astype(np.float64)

    return of_catalogue


def _linked(links: Links, users: Users, name: str) -> sparse.csr_matrix:
    """Return a signal of the users, [B, I+1] float32."""
    rows_N = np.repeat(np.arange(len(users.histories)), [len(history) for history in users.histories])
    items_N = np.array([item for history in users.histories for item in history], dtype=np.int64)
    newest_BH = left_padded(rows_N, items_N, len(users.histories), HISTORY)
    return links.signal(name, links.recent(newest_BH))


def _have_history(users: Users) -> np.ndarray:
    """Return whether the bundle knows any of a user's history, [B] bool."""
    return np.array([bool(history) for history in users.histories], dtype=bool)


FILLERS: dict[str, Filler] = {
    "popularity": Filler(popularity),
    "alignment": Filler(alignment, alignment_of_catalogue),
    **{name: Filler(links_of_pairs(name), links_of_catalogue(name)) for name in LINKS},
}
"""Part → its filler."""

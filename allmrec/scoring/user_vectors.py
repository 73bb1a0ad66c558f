"""What users are compared with items by: what the CF model, the projections and the text say of a history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor, nn

from allmrec.bundle import Bundle
from allmrec.models.links import HISTORY


@dataclass(frozen=True)
class UserVectors:
    """What B users are compared by."""

    cf: Tensor
    """x_u, [B, D] float32; zeros without CF history."""
    has_cf: np.ndarray
    """[B] bool: whether the history holds an item that the CF model knows."""
    text: Tensor
    """Unit vector of the mean centred q over the newest items, [B, J] float32; zeros without history."""
    has_text: np.ndarray
    """[B] bool: whether the history holds an item of the bundle."""
    alignment: Tensor
    """Unit vector of O_u, [B, H] float32; zeros without history."""
    recent: sparse.csr_matrix | None
    """Weights of the newest items, [B, I+1] float32; None: the bundle has no links."""


class UserEncoder:
    """Encodes histories with a bundle, and holds the item vectors that users are compared with, each once.

    `cf_items` is E [I+1, D], zeros where the CF model lacks an item, `text_items` the centred unit rows of q
    [I+1, J], `alignment_items` the unit rows of O [I+1, H], all contiguous float32; row 0 is padding.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.max_history = bundle.config.sequences.max_history
        self.links = bundle.links
        self.rec = bundle.rec.eval()
        self.known = np.asarray(bundle.known, dtype=bool)
        self.item_ids = pd.Index(bundle.items["item_id"])
        with torch.no_grad():
            self.cf_items = self.rec.cf_items().float().contiguous()
            text_IJ = bundle.rec.joint()[1].detach().float().to(self.cf_items.device)
            centre_J = text_IJ[1:].mean(dim=0) if bundle.text_centre is None else bundle.text_centre
            self.text_items, self.text_norms = centred_unit_rows(text_IJ, centre_J.to(text_IJ))
            self.soft_items = bundle.soft_items.float().to(self.cf_items.device)
            self.alignment_items = nn.functional.normalize(self.soft_items, dim=1)

    @torch.no_grad()
    def encode(self, histories: Sequence[Sequence[str]]) -> UserVectors:
        """Return the vectors of B histories of item ids, oldest first.

        Ids that the bundle lacks are passed over.
        """
        rows, items = self.indexed(histories)
        known = self.known[items]
        device = self.cf_items.device
        cf_history_BL = torch.from_numpy(
            left_padded(rows[known], items[known], len(histories), self.max_history)
        ).to(device)
        has_cf_B = (cf_history_BL > 0).any(dim=1)
        cf_BD = torch.zeros(len(histories), self.cf_items.shape[1], device=device)
        if has_cf_B.any():
            cf_BD[has_cf_B] = self.rec.cf.user_representation(cf_history_BL[has_cf_B]).float()
        newest_BL = left_padded(rows, items, len(histories), HISTORY)
        text_history_BL = torch.from_numpy(newest_BL).to(device)
        # The sum has the mean's direction, which is all that a cosine reads.
        text_sum_BJ = (self.text_items[text_history_BL] * self.text_norms[text_history_BL].unsqueeze(2)).sum(
            dim=1
        )
        text_BJ = nn.functional.normalize(text_sum_BJ, dim=1)
        has_text_B = (text_history_BL > 0).any(dim=1)
        history_BL = torch.from_numpy(left_padded(rows, items, len(histories), self.max_history)).to(device)
        soft_BH = self.rec.user_tokens(cf_BD, has_cf_B, history_BL, self.soft_items).float()
        alignment_BH = nn.functional.normalize(soft_BH, dim=1) * has_text_B[:, None]
        has_cf = has_cf_B.cpu().numpy()
        has_text = has_text_B.cpu().numpy()
        recent = None if self.links is None else self.links.recent(newest_BL)
        return UserVectors(cf_BD, has_cf, text_BJ, has_text, alignment_BH, recent)

    def indexed(self, lists: Sequence[Sequence[str] | None]) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, item_idx), [N] int64 each, of every id that the bundle has.

        Rows ascend, the order inside a list is kept.
        """
        counts, ids = flattened(lists)
        items = self.item_ids.get_indexer(ids) + 1
        rows = np.repeat(np.arange(len(counts)), counts)
        return rows[items > 0], items[items > 0]


def flattened(lists: Iterable[Sequence[str] | None]) -> tuple[np.ndarray, list[str]]:
    """Return the length of every list ([B] int64; None: 0) and all ids, one list after another."""
    present = [() if items is None else items for items in lists]
    return np.array([len(items) for items in present], dtype=np.int64), list(chain.from_iterable(present))


def left_padded(rows: np.ndarray, items: np.ndarray, num_rows: int, length: int) -> np.ndarray:
    """Return the last `length` items of each row, oldest first, zeros before them, [num_rows, length] int64.

    `rows` (ascending) and `items` are [N] int64.
    """
    padded = np.zeros((num_rows, length), dtype=np.int64)
    ends = np.cumsum(np.bincount(rows, minlength=num_rows))
    from_end = ends[rows] - 1 - np.arange(len(rows))
    is_recent = from_end < length
    padded[rows[is_recent], length - 1 - from_end[is_recent]] = items[is_recent]
    return padded


def centred_unit_rows(text_IJ: Tensor, centre_J: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows 1..I of q [I+1, J] minus the centre, at length 1, and their lengths before that [I+1].

    Row 0 (padding) is zeros.
    """
    centred_IJ = text_IJ - centre_J
    centred_IJ[0] = 0.0
    norms_I = torch.linalg.vector_norm(centred_IJ, dim=1)
    return (centred_IJ / norms_I.clamp_min(1e-12).unsqueeze(1)).contiguous(), norms_I

"""The nearest items of many vectors: exact, a block of items at a time, with a running top-k and hidden pairs."""

from __future__ import annotations

import numpy as np
import torch


@torch.no_grad()
def nearest(
    vectors_BD: torch.Tensor,
    items_ID: torch.Tensor,
    columns_N: np.ndarray,
    wanted: int,
    seen_rows: np.ndarray,
    seen_items: np.ndarray,
    block_items: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best `wanted` items of a row by dot product, over the items `columns_N` (ascending item_idx) without the seen ones.

    The product is taken `block_items` items at a time; a running top-k is kept between blocks. `seen_rows`, `seen_items` [M]: pairs
    (row, item_idx) that are left out before the cut. Returns (scores float32, item_idx int64), both [B, wanted], best first, equal scores
    by item_idx; −inf and 0 where a row has fewer items.
    """
    num_rows, device = len(vectors_BD), vectors_BD.device
    best = torch.full((num_rows, wanted), -torch.inf, device=device)
    best_items = torch.zeros((num_rows, wanted), dtype=torch.int64, device=device)
    columns = torch.from_numpy(np.asarray(columns_N, dtype=np.int64)).to(device)
    place = np.searchsorted(columns_N, seen_items)
    inside = np.zeros(len(place), dtype=bool)
    if len(columns_N):
        inside = columns_N[np.minimum(place, len(columns_N) - 1)] == seen_items
    order = np.argsort(place[inside], kind="stable")
    hidden_rows, hidden_places = seen_rows[inside][order], place[inside][order]
    for start in range(0, len(columns), block_items):
        block = columns[start : start + block_items]
        scores = vectors_BD @ items_ID[block].T
        low, high = np.searchsorted(hidden_places, [start, start + len(block)])
        at = (
            torch.from_numpy(hidden_rows[low:high]).to(device),
            torch.from_numpy(hidden_places[low:high] - start).to(device),
        )
        scores[at] = -torch.inf
        values, places = _stable_top(scores, wanted)
        both, both_items = torch.cat([best, values], dim=1), torch.cat([best_items, block[places]], dim=1)
        best, kept = (part[:, :wanted] for part in both.sort(dim=1, descending=True, stable=True))
        best_items = both_items.gather(1, kept)
    return best.cpu().numpy(), best_items.masked_fill(best == -torch.inf, 0).cpu().numpy()


def _stable_top(scores: torch.Tensor, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (values, places) of the best of each row, equal scores by place: `topk`, which takes any of equals, "
    "is put right where it matters."""
    wanted = min(wanted, scores.shape[1])
    values, places = scores.topk(wanted, dim=1)
    last = values[:, -1:]
    crowded = ((scores >= last).sum(dim=1) > wanted) & torch.isfinite(last[:, 0])
    if crowded.any():
        all_values, all_places = scores[crowded].sort(dim=1, descending=True, stable=True)
        values[crowded], places[crowded] = all_values[:, :wanted], all_places[:, :wanted]
    places, order = places.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, order)

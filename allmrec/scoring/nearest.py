"""The nearest items of many vectors: exact, a block of items at a time, with a running top."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def nearest(
    pairs: Sequence[tuple[Tensor, Tensor]],
    searched_items: np.ndarray,
    wanted: int,
    seen_rows: np.ndarray,
    seen_items: np.ndarray,
    block_items: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best `wanted` items per row by a sum of dot products, over the searched items but the seen.

    It is the dot product of concatenated vectors, which are never made. It is taken `block_items` items at a
    time; a running top is kept between blocks.

    | input | shape and type |
    |---|---|
    | pairs | rows [B, K] and items [I+1, K] float32, row item_idx; K may differ from pair to pair |
    | searched_items | [N] int64 item_idx, ascending |
    | seen_rows, seen_items | [M] int64: pairs (row, item_idx) that are left out before the cut |

    Returns (scores float32, item_idx int64), both [B, wanted], best first, equal scores by item_idx; −inf and
    0 where a row has fewer.
    """
    num_rows, device = len(pairs[0][0]), pairs[0][0].device
    best = torch.full((num_rows, wanted), -torch.inf, device=device)
    best_items = torch.zeros((num_rows, wanted), dtype=torch.int64, device=device)
    item_N = torch.from_numpy(np.asarray(searched_items, dtype=np.int64)).to(device)
    hidden_rows, hidden_columns = _hidden(searched_items, seen_rows, seen_items)
    for start in range(0, len(item_N), block_items):
        block = item_N[start : start + block_items]
        scores = functools.reduce(torch.add, (rows_BK @ items_IK[block].T for rows_BK, items_IK in pairs))
        low, high = np.searchsorted(hidden_columns, [start, start + len(block)])
        rows, columns = hidden_rows[low:high], hidden_columns[low:high] - start
        scores[torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)] = -torch.inf
        values, columns_of_block = _stable_top(scores, wanted)
        both, both_items = (
            torch.cat([best, values], dim=1),
            torch.cat([best_items, block[columns_of_block]], dim=1),
        )
        best, order = (part[:, :wanted] for part in both.sort(dim=1, descending=True, stable=True))
        best_items = both_items.gather(1, order)
    return best.cpu().numpy(), best_items.masked_fill(best == -torch.inf, 0).cpu().numpy()


def _hidden(
    searched_items: np.ndarray, seen_rows: np.ndarray, seen_items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, column among the searched items), int64, of the seen pairs that are searched.

    Columns ascend.
    """
    columns = np.searchsorted(searched_items, seen_items)
    is_searched = np.zeros(len(columns), dtype=bool)
    if len(searched_items):
        is_searched = searched_items[np.minimum(columns, len(searched_items) - 1)] == seen_items
    order = np.argsort(columns[is_searched], kind="stable")
    return seen_rows[is_searched][order], columns[is_searched][order]


def _stable_top(scores_BN: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """Return (values, columns), [B, wanted] each, of the best of each row, equal scores by column.

    `topk` takes any of equals, so it is put right where that matters.
    """
    num_items = scores_BN.shape[1]
    wanted = min(wanted, num_items)
    # One more than is wanted tells whether the last one has an equal further down.
    values, columns = scores_BN.topk(min(wanted + 1, num_items), dim=1)
    last = values[:, wanted - 1]
    crowded_B = (values[:, -1] == last) & torch.isfinite(last) & (num_items > wanted)
    values, columns = values[:, :wanted], columns[:, :wanted]
    if crowded_B.any():
        sorted_values, sorted_columns = scores_BN[crowded_B].sort(dim=1, descending=True, stable=True)
        values[crowded_B], columns[crowded_B] = sorted_values[:, :wanted], sorted_columns[:, :wanted]
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)

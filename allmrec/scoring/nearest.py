"""The nearest items of many vectors: exact, a block of items at a time, with a running top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


class Search(NamedTuple):
    """A question: the best `wanted` of some items by the sum of the first `num_pairs` products."""

    num_pairs: int
    items: np.ndarray
    """[N] int64 item_idx, ascending."""
    wanted: int


@torch.no_grad()
def nearest(
    pairs: Sequence[tuple[Tensor, Tensor]],
    searches: Sequence[Search],
    seen_rows: np.ndarray,
    seen_items: np.ndarray,
    block_items: int,
    linked: sparse.csr_matrix | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the best unseen items per row by a sum of dot products, for each search.

    It is the dot product of concatenated vectors, which are never made. It is taken `block_items` items at a
    time and once for all searches; a running top is kept between blocks.

    | input | shape and type |
    |---|---|
    | pairs | rows [B, K] and items [I+1, K] float32, row item_idx; K may differ from pair to pair |
    | linked | [B, I+1] float32: added to the products of every search; None: nothing is |
    | seen_rows, seen_items | [M] int64: pairs (row, item_idx) that are left out before the cut |

    Returns (scores float32, item_idx int64) of every search, both [B, wanted], best first, equal scores by
    item_idx; −inf and 0 where a row has fewer.
    """
    num_rows = len(pairs[0][0])
    device = pairs[0][0].device
    tops = [
        (
            torch.full((num_rows, search.wanted), -torch.inf, device=device),
            torch.zeros((num_rows, search.wanted), dtype=torch.int64, device=device),
        )
        for search in searches
    ]
    searched_N = np.unique(np.concatenate([search.items for search in searches]))
    hidden_rows, hidden_columns = _hidden(searched_N, seen_rows, seen_items)
    linked_BN = None if linked is None else linked.tocsc()[:, searched_N]
    for start in range(0, len(searched_N), block_items):
        block_N = searched_N[start : start + block_items]
        item_N = torch.from_numpy(block_N).to(device)
        if linked_BN is None:
            scores_BN = torch.zeros((num_rows, len(block_N)), device=device)
        else:
            scores_BN = _block_of_links(linked_BN, start, start + len(block_N), device)
        low, high = np.searchsorted(hidden_columns, [start, start + len(block_N)])
        rows = hidden_rows[low:high]
        columns = hidden_columns[low:high] - start
        scores_BN[torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)] = -torch.inf
        for num_pairs, (rows_BK, items_IK) in enumerate(pairs, start=1):
            scores_BN.addmm_(rows_BK, items_IK[item_N].T)
            for number, search in enumerate(searches):
                if search.num_pairs == num_pairs:
                    is_searched_N = np.isin(block_N, search.items, assume_unique=True)
                    tops[number] = _with_more(tops[number], scores_BN, item_N, is_searched_N)
    return [
        (best.cpu().numpy(), best_items.masked_fill(best == -torch.inf, 0).cpu().numpy())
        for best, best_items in tops
    ]


def _with_more(
    top: tuple[Tensor, Tensor], scores_BN: Tensor, item_N: Tensor, is_searched_N: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return the top (scores, item_idx), [B, wanted] each, of what it holds and of columns of a block."""
    best, best_items = top
    wanted = best.shape[1]
    if not is_searched_N.any():
        return top
    if not is_searched_N.all():
        columns_M = torch.from_numpy(np.flatnonzero(is_searched_N)).to(item_N.device)
        scores_BN = scores_BN[:, columns_M]
        item_N = item_N[columns_M]
    values, columns = _stable_top(scores_BN, wanted)
    both = torch.cat([best, values], dim=1).sort(dim=1, descending=True, stable=True)
    best, order = (part[:, :wanted] for part in both)
    return best, torch.cat([best_items, item_N[columns]], dim=1).gather(1, order)


def _block_of_links(linked_BN: sparse.csc_matrix, start: int, end: int, device: torch.device) -> Tensor:
    """Return columns start..end − 1 of a sparse matrix, [B, end − start] float32."""
    first, last = linked_BN.indptr[[start, end]]
    columns = np.repeat(np.arange(end - start), np.diff(linked_BN.indptr[start : end + 1]))
    scores_BN = torch.zeros((linked_BN.shape[0], end - start), device=device)
    cells = (linked_BN.indices[first:last].astype(np.int64), columns)
    scores_BN[tuple(torch.from_numpy(part).to(device) for part in cells)] = torch.from_numpy(
        linked_BN.data[first:last]
    ).to(device)
    return scores_BN


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
    values = values[:, :wanted]
    columns = columns[:, :wanted]
    if crowded_B.any():
        sorted_values, sorted_columns = scores_BN[crowded_B].sort(dim=1, descending=True, stable=True)
        values[crowded_B] = sorted_values[:, :wanted]
        columns[crowded_B] = sorted_columns[:, :wanted]
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)

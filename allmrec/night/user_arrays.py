"""Lists of a frame, one per user, as padded arrays, and arrays as lists."""

from __future__ import annotations

import numpy as np
import pandas as pd


def lengths(lists: pd.Series) -> np.ndarray:
    """Return the length of every user's list, [B] int64."""
    return lists.map(len).to_numpy(dtype=np.int64)


def flat(lists: pd.Series) -> np.ndarray:
    """Return the elements of all lists, [N]."""
    return np.concatenate(list(lists)) if len(lists) else np.empty(0)


def padded(values: np.ndarray, sizes_B: np.ndarray) -> np.ndarray:
    """Return the values [N, …] of lists of these sizes as [B, C, …], zeros beyond a list's end."""
    width = int(sizes_B.max(initial=0))
    found = np.zeros((len(sizes_B), width, *values.shape[1:]), dtype=values.dtype)
    found[np.arange(width) < sizes_B[:, None]] = values
    return found


def as_array(lists: pd.Series, kind: type) -> np.ndarray:
    """Return the lists' elements of a type as [B, C], zeros beyond a list's end."""
    return padded(flat(lists).astype(kind), lengths(lists))


def as_numbers(lists: pd.Series) -> np.ndarray:
    """Return a number for every value of the lists, [B, C] int64; each missing one has its own."""
    numbers_N, _ = pd.factorize(flat(lists))
    numbers_N = np.where(numbers_N < 0, len(numbers_N) + np.arange(len(numbers_N)), numbers_N)
    return padded(numbers_N, lengths(lists))


def as_lists(values_BC: np.ndarray, sizes_B: np.ndarray) -> pd.Series:
    """Return the values of every user's items as lists, [B]."""
    lists = [row[:size].tolist() for row, size in zip(values_BC, sizes_B, strict=True)]
    return pd.Series(lists, dtype=object)

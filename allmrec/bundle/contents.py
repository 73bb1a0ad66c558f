"""What the files of a bundle must hold, beside their checksums: shapes, types, counts, finite numbers.

A checksum says that a file is the one that was written, not that its writer was right. A check raises
ValueError with what was found and expected; `reading` makes of it a BundleError that names the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyarrow import ArrowException
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from allmrec.errors import BundleError
from allmrec.llm.refusal import one_line
from allmrec.parts import PARTS
from allmrec.ranking.blend import BlendWeights
from allmrec.ranking.decision import IN_WORDS, Decision
from allmrec.ranking.search_weights import SearchWeights

ITEM_COLUMNS = ["item_idx", "item_id", "title", "text_hash", "num_interactions"]
"""Columns of items.parquet."""
FITTED = frozenset(("with_llm", "without_llm"))
"""Blends that every finished bundle has."""
FLOATS = (torch.float32,)
INTEGERS = (torch.int32, torch.int64)
BOOLS = (torch.bool,)
TYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
"""How a safetensors header names the types of networks."""
WRONG: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, SafetensorError, ArrowException),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
)
"""What readers and checks raise of a file with another content."""
COPY = "copy or train the bundle again"


@contextmanager
def reading(folder: Path, file: str, advice: str = COPY) -> Iterator[None]:
    """Raise BundleError that names the file of the bundle in `folder`, where the block cannot read it."""
    try:
        yield
    except WRONG as error:
        raise BundleError(f"bundle {folder}: {file}: {one_line(error)}; {advice}") from error


def check_items(items: pd.DataFrame, num_items: int) -> None:
    """Raise ValueError where the table is not that of items 1 to I in order, each with its own id."""
    missing = [name for name in ITEM_COLUMNS if name not in items]
    if missing:
        raise ValueError(f"no column {missing[0]}, expected {', '.join(ITEM_COLUMNS)}")
    if len(items) != num_items:
        raise ValueError(f"{len(items):,} items, expected the {num_items:,} of manifest.json")
    for name, dtype in (("item_idx", np.int32), ("num_interactions", np.int64)):
        if items[name].dtype != dtype:
            raise ValueError(f"{name} is {items[name].dtype}, expected {np.dtype(dtype)}")
    for name in ("item_id", "title", "text_hash"):
        if not items[name].map(type).eq(str).all():
            raise ValueError(f"{name} has values that are no text, expected one in every row")
    if not np.array_equal(items["item_idx"], np.arange(1, num_items + 1)):
        raise ValueError(f"item_idx is not 1 to {num_items:,} in order")
    twice = items["item_id"][items["item_id"].duplicated()]
    if len(twice):
        raise ValueError(f"item_id {twice.iloc[0]!r} occurs twice, expected every item once")
    if (items["num_interactions"] < 0).any():
        raise ValueError("num_interactions is negative for an item, expected counts")


def check_tensor(
    tensors: Mapping[str, Tensor], name: str, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]
) -> None:
    """Raise ValueError where a tensor is missing, or of another type or shape; −1 stands for any length."""
    if name not in tensors:
        raise ValueError(f"no tensor {name}, expected one of {list(shape)}")
    tensor = tensors[name]
    fits = tensor.dim() == len(shape) and all(
        length in (-1, found) for length, found in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype not in dtypes or not fits:
        lengths = ", ".join("any" if length < 0 else str(length) for length in shape)
        raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, expected {dtypes[0]} [{lengths}]")


def check_titles(tokens: Tensor, offsets: Tensor) -> None:
    """Raise ValueError where offsets [I+2] do not split token ids [T], or an id is negative."""
    num_tokens = len(tokens)
    if offsets[0] != 0 or offsets[-1] != num_tokens or (offsets.diff() < 0).any():
        raise ValueError(f"title_offsets do not split the {num_tokens:,} title_tokens by item")
    if num_tokens and int(tokens.min()) < 0:
        raise ValueError("title_tokens has negative token ids, expected those of a vocabulary")


def check_tokens(tokens: Tensor, vocab_size: int) -> None:
    """Raise ValueError where token ids [T] are not all in the vocabulary of the LLM."""
    if len(tokens) and int(tokens.max()) >= vocab_size:
        raise ValueError(
            f"title_tokens has token {int(tokens.max()):,}, expected one of {vocab_size:,} tokens"
        )


def check_vocabulary(num_items: int, counts: Mapping[str, int]) -> None:
    """Raise ValueError where a word's count is not one of `num_items` items."""
    _check_numbers("num_items", [num_items], 0.0)
    _check_numbers("counts", counts.values(), 0.0, num_items)


def check_links(name: str, offsets: Tensor, columns: Tensor, values: Tensor, width: int) -> None:
    """Raise ValueError where offsets [I+2], columns [N] and values [N] are no sparse matrix [I+1, width]."""
    num_values = len(values)
    if len(columns) != num_values:
        raise ValueError(f"links_{name} has {len(columns):,} columns, expected one for {num_values:,} values")
    if offsets[0] != 0 or offsets[-1] != num_values or (offsets.diff() < 0).any():
        raise ValueError(f"links_{name}_offsets do not split the {num_values:,} values by item")
    if num_values and not 0 <= int(columns.min()) <= int(columns.max()) < width:
        raise ValueError(f"links_{name}_columns are not all among {width:,} columns")


def check_network(path: Path, network: nn.Module) -> None:
    """Raise ValueError where a file's tensors are not those of the network, before any of them is read.

    `network` may be on the meta device.
    """
    wanted = {name: (list(value.shape), TYPES[value.dtype]) for name, value in network.state_dict().items()}
    with safe_open(path, framework="pt") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}
        found = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            there, expected = (_in_words(kinds.get(name)) for kinds in (found, wanted))
            raise ValueError(f"{name} is {there}, expected {expected}")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming it, where a tensor of floats holds NaN or an infinite number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            if not torch.stack(torch.aminmax(tensor)).isfinite().all():
                raise ValueError(f"{name} holds NaN or infinite numbers, expected finite ones")


def check_blends(blends: Mapping[str, BlendWeights]) -> None:
    """Raise ValueError where a blend is missing, weighs what is no part, or is not made of such numbers."""
    if set(blends) != FITTED:
        raise ValueError(f"blends {sorted(blends)}, expected with_llm and without_llm")
    for name, blend in blends.items():
        parts = {*blend.weights, *blend.part_temperatures}
        if not blend.weights or not parts <= PARTS.keys():
            raise ValueError(f"{name} weighs {sorted(parts)}, expected parts of {sorted(PARTS)}")
        _check_numbers(f"{name}.weights", blend.weights.values(), 0.0)
        _check_numbers(f"{name}.unknown_offset", [blend.unknown_offset])
        _check_numbers(f"{name}.num_users", [blend.num_users], 0.0)
        _check_numbers(f"{name}.recall", [blend.recall], 0.0, 1.0)
        temperatures = [blend.temperature, *blend.part_temperatures.values()]
        _check_numbers(f"{name}.temperature", temperatures, math.ulp(0.0))


def check_search(search: SearchWeights) -> None:
    """Raise ValueError where the search names a wrong signal or holds a wrong number."""
    if not search.weights or not search.weights.keys() <= PARTS.keys():
        raise ValueError(f"retrieval weighs {sorted(search.weights)}, expected parts of {sorted(PARTS)}")
    _check_numbers("retrieval.weights", search.weights.values(), 0.0)
    _check_numbers("retrieval.unknown_offset", [search.unknown_offset])
    _check_numbers("retrieval.num_users", [search.num_users], 0.0)


def check_decision(decision: Decision) -> None:
    """Raise ValueError where a decision serves or compares what is no order, or has other numbers."""
    names = [decision.served, *(order.name for order in decision.compared)]
    unknown = [name for name in names if name not in IN_WORDS]
    if unknown:
        raise ValueError(f"the order {unknown[0]!r}, expected one of {', '.join(IN_WORDS)}")
    _check_numbers("num_users", [decision.num_users], 0.0)
    if decision.num_users and not decision.compared:
        raise ValueError("no order was compared, expected those of its users")
    for order in decision.compared:
        _check_numbers(f"{order.name}.ndcg", [order.ndcg], 0.0, 1.0)
        _check_numbers(f"{order.name}.tokens_per_user", [order.tokens_per_user], 0.0)
        _check_numbers(f"{order.name}, interval", [order.low, order.high])


def _check_numbers(what: str, values: Iterable[Any], low: float = -math.inf, high: float = math.inf) -> None:
    """Raise ValueError where one of the values is no finite number from `low` to `high`."""
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            expected = f"from {low:g} to {high:g}" if math.isfinite(high) else "that is finite"
            raise ValueError(f"{what} is {value!r}, expected a number {expected}")


def _in_words(kind: tuple[list[int], str] | None) -> str:
    return "missing" if kind is None else f"{kind[1]} {kind[0]}"

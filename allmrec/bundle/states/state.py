"""The contract of a state: a trained part of a bundle, and its change by other items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from allmrec.bundle.contents import check_finite, check_network, check_tensor, reading
from allmrec.bundle.manifest import Manifest
from allmrec.config import Config
from allmrec.llm.frozen import FrozenLLM

ITEM_TENSORS = "items.safetensors"
"""File of the states' tensors that have a row per item."""

S = TypeVar("S", bound="State")
Network = TypeVar("Network", bound=nn.Module)


class State(ABC):
    """A trained part of a bundle. It is immutable.

    A state reads only the states before it in `allmrec.bundle.states.STATES`.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = ()
    """Its own files and folders in a bundle's folder."""

    def item_tensors(self) -> dict[str, Tensor]:
        """Return its tensors in `ITEM_TENSORS`, by name, of any shape."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write its own files into a bundle's folder."""

    @classmethod
    @abstractmethod
    def load(cls, stored: Stored) -> State | None:
        """Return the state of a stored bundle; None: the bundle is older than the state.

        Raises BundleError where a file has wrong content.
        """

    @abstractmethod
    def extended(self, new: NewItems) -> State:
        """Return the state with items added or reworded since training."""

    @abstractmethod
    def transferred(self, new: NewItems) -> State:
        """Return the state with another shop's items, all new, instead of its own."""


@dataclass(frozen=True)
class Stored:
    """The folder of a bundle whose checksums are right."""

    folder: Path
    manifest: Manifest
    config: Config
    tensors: Mapping[str, Tensor]
    """The tensors of `ITEM_TENSORS`, by name."""
    vocab_size: int | None
    """Vocabulary size of the LLM; None: no LLM is given."""

    @property
    def num_rows(self) -> int:
        """I + 1."""
        return self.manifest.num_items + 1

    def tensor(self, name: str, dtypes: tuple[torch.dtype, ...], *shape: int) -> Tensor:
        """Return a tensor of `ITEM_TENSORS` after checking its type, shape and numbers.

        −1 stands for any length. Raises BundleError where the tensor is missing, has another type or shape,
        or holds NaN or infinite numbers.
        """
        with reading(self.folder, ITEM_TENSORS):
            check_tensor(self.tensors, name, dtypes, shape)
            check_finite({name: self.tensors[name]})
        return self.tensors[name]

    def network(self, file: str, build: Callable[[], Network]) -> Network:
        """Return the network of `build` with the weights of a file, in eval mode.

        The network is compared with the file first, on the meta device, so that a wrong size is an error
        of one line and not a full memory. Raises BundleError where settings or file do not fit.
        """
        path = self.folder / file
        with torch.device("meta"), reading(self.folder, "config.json"):
            expected = build()
        with reading(self.folder, file, "use the allmrec that wrote it"):
            check_network(path, expected)
        # The initial weights are replaced. Drawing them must not change later draws.
        with torch.random.fork_rng(devices=[]):
            network = build()
        with reading(self.folder, file):
            weights = load_file(path)
            check_finite(weights)
            network.load_state_dict(weights)
        return network.eval()


@dataclass(frozen=True)
class NewItems:
    """The items of a child bundle, and the means to compute their states."""

    items: pd.DataFrame
    """The child's items.parquet."""
    changed_idx: list[int]
    """N items that are new or reworded."""
    embeddings: Tensor
    """Their texts', [N, S] float32."""
    config: Config
    llm: FrozenLLM
    parent: Mapping[str, State]
    states: Mapping[str, State]
    """The child's states before this one in `STATES`."""

    @property
    def num_rows(self) -> int:
        """I + 1 of the child."""
        return len(self.items) + 1

    @property
    def embedding_rows(self) -> Tensor:
        """The embeddings at their items' rows, [I+1, S] float32; the other rows are zeros."""
        rows = self.embeddings.new_zeros((self.num_rows, self.embeddings.shape[1]))
        rows[self.changed_idx] = self.embeddings
        return rows

    @property
    def changed_titles(self) -> list[str]:
        """The titles of the N items."""
        return self.items["title"].iloc[[idx - 1 for idx in self.changed_idx]].tolist()


def state_of(states: Mapping[str, State], kind: type[S]) -> S:
    """Return the state of a kind.

    Raises KeyError where it is missing, TypeError where the state of that name has another kind.
    """
    state = states[kind.name]
    if not isinstance(state, kind):
        raise TypeError(f"state {kind.name} is a {type(state).__name__}, expected a {kind.__name__}")
    return state


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors of any shape and type to a safetensors file."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def grown(rows: Tensor, num_rows: int) -> Tensor:
    """Return `rows` [n, …] with zeros below them, [num_rows, …]."""
    more = rows.new_zeros((num_rows, *rows.shape[1:]))
    more[: len(rows)] = rows
    return more

"""The contract of a state: what a bundle keeps of a trained part, and what becomes of it with other items."""

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
"""File of the tensors that states keep of every item."""

S = TypeVar("S", bound="State")
Network = TypeVar("Network", bound=nn.Module)


class State(ABC):
    """What a bundle keeps of a trained part; it never changes.

    A state reads those before it in `allmrec.bundle.states.STATES` only.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = ()
    """Its own files and folders in a bundle's folder."""

    def item_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that it keeps in `ITEM_TENSORS`, by name, of any shape."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write its own files into a bundle's folder."""

    @classmethod
    @abstractmethod
    def load(cls, stored: Stored) -> State | None:
        """Return the state of a stored bundle; None where the bundle is older than the state.

        Raises BundleError where a file does not hold what it must.
        """

    @abstractmethod
    def extended(self, new: NewItems) -> State:
        """Return the state with items that were added or reworded since training."""

    @abstractmethod
    def transferred(self, new: NewItems) -> State:
        """Return the state with another shop's items, all of them new, in place of its own."""


@dataclass(frozen=True)
class Stored:
    """The folder of a bundle whose checksums are right."""

    folder: Path
    manifest: Manifest
    config: Config
    tensors: Mapping[str, Tensor]
    """Those of `ITEM_TENSORS`."""
    states: Mapping[str, State]
    """What was loaded so far."""
    vocab_size: int | None
    """Of the LLM; None where none is given."""

    @property
    def num_rows(self) -> int:
        """I + 1."""
        return self.manifest.num_items + 1

    def tensor(self, name: str, dtypes: tuple[torch.dtype, ...], *shape: int) -> Tensor:
        """Return a tensor of `ITEM_TENSORS`, of one of the types and this shape; −1 stands for any length.

        Raises BundleError where it is missing, another one, or holds NaN or infinite numbers.
        """
        with reading(self.folder, ITEM_TENSORS):
            check_tensor(self.tensors, name, dtypes, shape)
            check_finite({name: self.tensors[name]})
        return self.tensors[name]

    def network(self, file: str, build: Callable[[], Network]) -> Network:
        """Return the network that `build` makes, with the weights of a file, in eval mode.

        It is compared with the file first without any memory, so that a wrong size is an error of one line
        and not a full memory. Raises BundleError where settings or file do not fit.
        """
        path = self.folder / file
        with torch.device("meta"), reading(self.folder, "config.json"):
            expected = build()
        with reading(self.folder, file, "use the allmrec that wrote it"):
            check_network(path, expected)
        # Initial weights are drawn and thrown away: nobody else's draws may move.
        with torch.random.fork_rng(devices=[]):
            network = build()
        with reading(self.folder, file):
            weights = load_file(path)
            check_finite(weights)
            network.load_state_dict(weights)
        return network.eval()


@dataclass(frozen=True)
class NewItems:
    """What the states of a child are made of, beside those of its parent."""

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
    """The child's, as far as they are made."""

    @property
    def num_rows(self) -> int:
        """I + 1 of the child."""
        return len(self.items) + 1

    @property
    def changed_titles(self) -> list[str]:
        """The titles of the N items."""
        return self.items["title"].iloc[[idx - 1 for idx in self.changed_idx]].tolist()


def state_of(states: Mapping[str, State], kind: type[S]) -> S:
    """Return the state of a kind; raises KeyError where there is none, TypeError where it is another kind."""
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

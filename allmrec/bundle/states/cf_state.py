"""The state of the CF model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from allmrec.bundle.contents import BOOLS, reading
from allmrec.bundle.states.alignment_state import AlignmentState
from allmrec.bundle.states.state import (
    ITEM_TENSORS,
    NewItems,
    State,
    Stored,
    grown,
    save_tensors,
    state_of,
)
from allmrec.models.cf import CFModel, build_cf_model


@dataclass(frozen=True)
class CFState(State):
    """The CF model, and the items that it knows."""

    name = "cf"
    files = ("cf.safetensors",)

    model: CFModel
    known: Tensor
    """Bool [I+1]: items of the model's training."""

    def item_tensors(self) -> dict[str, Tensor]:
        """Return `known`, [I+1] bool."""
        return {"known": self.known}

    def save(self, folder: Path) -> None:
        """Write the model."""
        save_tensors(self.model.state_dict(), folder / "cf.safetensors")

    @classmethod
    def load(cls, stored: Stored) -> CFState:
        """Return the state of a stored bundle; raises BundleError for wrong content."""
        config = stored.config
        num_items = stored.manifest.cf_num_items
        known = stored.tensor("known", BOOLS, stored.num_rows)
        with reading(stored.folder, ITEM_TENSORS):
            if known[0] or known[num_items + 1 :].any():
                raise ValueError(f"known names items beyond the {num_items:,} of the CF model")
        model = stored.network(
            "cf.safetensors",
            lambda: build_cf_model(config.cf, num_items, config.sequences.max_history),
        )
        return cls(model, known)

    def extended(self, new: NewItems) -> CFState:
        """Return the state with new items, which the model does not know."""
        return replace(self, known=grown(self.known, new.num_rows))

    @torch.no_grad()
    def transferred(self, new: NewItems) -> CFState:
        """Return the model with item vectors that the alignment decodes from texts.

        The model reads the vectors in histories. As candidates, all items are unknown to it.
        """
        networks = state_of(new.parent, AlignmentState).networks
        matrix_ID = networks.item_decoder(networks.text_projector(new.embedding_rows))
        matrix_ID[0] = 0.0
        return CFState(self.model.with_items(matrix_ID), torch.zeros(new.num_rows, dtype=torch.bool))

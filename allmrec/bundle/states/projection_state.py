"""The state of stage 2: projections and soft tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from allmrec.bundle.contents import FLOATS
from allmrec.bundle.states.alignment_state import AlignmentState
from allmrec.bundle.states.cf_state import CFState
from allmrec.bundle.states.state import NewItems, State, Stored, grown, save_tensors, state_of
from allmrec.config import Stage2Config
from allmrec.models.a_llmrec import ALLMRec
from allmrec.models.projection import Projection, item_input_width


@dataclass(frozen=True)
class ProjectionState(State):
    """The projections, and the soft tokens of the items."""

    name = "stage2"
    files = ("stage2.safetensors",)

    projection: Projection
    soft_items: Tensor
    """O_i, float32 [I+1, H]; row 0 zeros."""

    @classmethod
    @torch.no_grad()
    def of(cls, rec: ALLMRec) -> ProjectionState:
        """Return the state of trained projections."""
        return cls(rec.projection, rec.soft_items().detach().float())

    def item_tensors(self) -> dict[str, Tensor]:
        """Return O_i [I+1, H] float32."""
        return {"soft_items": self.soft_items.float()}

    def save(self, folder: Path) -> None:
        """Write the projections."""
        save_tensors(self.projection.state_dict(), folder / "stage2.safetensors")

    @classmethod
    def load(cls, stored: Stored) -> ProjectionState:
        """Return the state of a stored bundle; raises BundleError for wrong content."""
        config = stored.config
        width = stored.manifest.llm.width
        soft_items = stored.tensor("soft_items", FLOATS, stored.num_rows, width)
        inputs = item_input_width(config.stage2, config.cf.width, config.stage1.width)
        projection = stored.network(
            "stage2.safetensors", lambda: Projection(config.cf.width, inputs, width, 1.0, config.stage2)
        )
        return cls(projection, soft_items)

    @torch.no_grad()
    def extended(self, new: NewItems) -> ProjectionState:
        """Return the state with the soft tokens of the changed items."""
        rec = composed(new.states, self.projection, new.config.stage2)
        soft_items = grown(self.soft_items, new.num_rows)
        soft_items[new.changed_idx] = rec.soft_items(torch.tensor(new.changed_idx)).detach().float()
        return replace(self, soft_items=soft_items)

    def transferred(self, new: NewItems) -> ProjectionState:
        """Return the state with the soft tokens of the other shop's items."""
        return ProjectionState.of(composed(new.states, self.projection, new.config.stage2))


def composed(states: Mapping[str, State], projection: Projection, settings: Stage2Config) -> ALLMRec:
    """Return A-LLMRec, composed of the CF model, stage 1 and projections."""
    cf = state_of(states, CFState)
    alignment = state_of(states, AlignmentState)
    return ALLMRec(
        cf.model, alignment.networks, projection, alignment.text_embeddings, cf.known, settings
    ).eval()

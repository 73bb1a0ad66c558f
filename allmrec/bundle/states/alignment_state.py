"""The state of stage 1: alignment networks and text embeddings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from allmrec.bundle.contents import FLOATS
from allmrec.bundle.states.state import NewItems, State, Stored, grown, save_tensors
from allmrec.models.alignment import AlignmentNetworks


@dataclass(frozen=True)
class AlignmentState(State):
    """The alignment networks, and the embeddings of the items' texts."""

    name = "stage1"
    files = ("stage1.safetensors", "text_encoder")

    networks: AlignmentNetworks
    text_embeddings: Tensor
    """Q, float32 [I+1, S], row 0 zeros."""
    text_centre: Tensor | None
    """Mean q of the training's items, float32 [J]. Similarity by text is the cosine around it.

    A child has its parent's mean, so that new items leave the scores of the others unchanged. None: the mean
    of the bundle's own items (bundles of earlier versions).
    """
    encoder_folder: Path | None = None
    """The fine-tuned sentence encoder; None: the one that config names."""

    @classmethod
    def of(
        cls, networks: AlignmentNetworks, text_embeddings: Tensor, encoder_folder: Path | None = None
    ) -> AlignmentState:
        """Return the state of trained networks.

        The text embeddings Q are float32 [I+1, S], row 0 zeros.
        """
        networks.eval()
        return cls(networks, text_embeddings, _centre(networks, text_embeddings), encoder_folder)

    def item_tensors(self) -> dict[str, Tensor]:
        """Return Q [I+1, S] float32, and the centre [J] float32 if it exists."""
        tensors = {"text_embeddings": self.text_embeddings.float()}
        return tensors if self.text_centre is None else {**tensors, "text_centre": self.text_centre}

    def save(self, folder: Path) -> None:
        """Write the networks, and the fine-tuned encoder if it exists."""
        save_tensors(self.networks.state_dict(), folder / "stage1.safetensors")
        if self.encoder_folder is not None:
            shutil.copytree(self.encoder_folder, folder / "text_encoder")

    @classmethod
    def load(cls, stored: Stored) -> AlignmentState:
        """Return the state of a stored bundle; raises BundleError for wrong content."""
        config = stored.config
        encoder = stored.folder / "text_encoder"
        centre: Tensor | None = None
        embeddings = stored.tensor("text_embeddings", FLOATS, stored.num_rows, -1)
        if "text_centre" in stored.tensors:
            centre = stored.tensor("text_centre", FLOATS, config.stage1.width)
        networks = stored.network(
            "stage1.safetensors",
            lambda: AlignmentNetworks(config.cf.width, embeddings.shape[1], config.stage1),
        )
        return cls(networks, embeddings, centre, encoder if encoder.is_dir() else None)

    def extended(self, new: NewItems) -> AlignmentState:
        """Return the state with the changed items' embeddings; the centre stays."""
        embeddings = grown(self.text_embeddings, new.num_rows)
        embeddings[new.changed_idx] = new.embeddings
        centre = self.text_centre
        if centre is None:
            centre = _centre(self.networks, self.text_embeddings)
        return replace(self, text_embeddings=embeddings, text_centre=centre)

    def transferred(self, new: NewItems) -> AlignmentState:
        """Return the state with the other shop's embeddings, and their centre."""
        return AlignmentState.of(self.networks, new.embedding_rows, self.encoder_folder)


@torch.no_grad()
def _centre(networks: AlignmentNetworks, embeddings_IS: Tensor) -> Tensor:
    """Return the mean q of all items, [J] float32.

    `embeddings_IS` [I+1, S] float32 has row 0 for padding.
    """
    return networks.text_projector(embeddings_IS)[1:].float().mean(dim=0).cpu()

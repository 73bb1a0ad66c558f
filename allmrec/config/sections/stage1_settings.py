"""Settings of stage 1."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from allmrec.config.sections.section import Count, NonNegative, Positive, Section


class Stage1Config(Section):
    """Stage 1: the joint collaborative-text embedding."""

    width: Count = 128
    """Joint width J."""
    networks: Literal["plain", "deep"] = "plain"
    """`plain`: one layer and a sigmoid (the paper); `deep`: four hidden layers with ReLU and dropout 0.2."""
    matching: Literal["infonce", "mse", "none"] = "infonce"
    """Matching loss: InfoNCE with a semantic filter, MSE (the paper), or none."""
    temperature: Positive = 0.1
    """Temperature of InfoNCE."""
    filter_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Negatives whose text is more similar to the anchor's (cosine) than this are left out of InfoNCE."""
    item_reconstruction: NonNegative = 0.25
    """Weight α of the item reconstruction loss (0.5 in the paper)."""
    text_reconstruction: NonNegative = 0.25
    """Weight β of the text reconstruction loss (0.5 or 0.2 in the paper)."""
    recommendation: NonNegative = 1.0
    """Weight of the recommendation loss."""
    recommendation_score: Literal["dot", "mean"] = "dot"
    """What the recommendation loss scores items by: the dot product with the user (the paper's equation), or
    that divided by the width (its authors' code)."""
    positions: Literal["last", "all"] = "last"
    """Positions of a sequence that are learned from; `all` is the paper's variant with all positions."""
    cf_dropout: bool = False
    """Keep the frozen CF model's dropout on while it gives x_u (the authors' code)."""
    text_encoder: Literal["frozen", "finetuned"] = "frozen"
    """Whether the sentence encoder is trained as well (`finetuned`, the paper)."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with weight decay 0.1."""
    learning_rate: Positive = 1e-3
    """Learning rate (1e-4 in the paper)."""
    batch_size: Count = 32
    """Users per step."""
    epochs: Count = 10
    """Number of epochs."""

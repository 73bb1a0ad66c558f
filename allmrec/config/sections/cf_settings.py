"""Settings of the collaborative-filtering model: those of every backbone, and a section for each of them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from allmrec.config.sections.section import Count, Fraction, Momentum, NonNegative, Positive, Section


class SASRecConfig(Section):
    """SASRec alone."""

    num_blocks: Count = 1
    """Attention blocks (2 in the SASRec paper)."""
    num_heads: Count = 1
    """Attention heads."""
    network: Literal["pre_norm", "authors"] = "pre_norm"
    """Form of the attention blocks: `pre_norm`, or `authors`, that of the paper's code (keys and values of
    un-normed states, residuals around normed ones, padding attended to, dropout on attention weights,
    Xavier-normal initial weights)."""


class GRU4RecConfig(Section):
    """GRU4Rec alone."""

    hidden_width: Count = 128
    """Width of the recurrent state."""
    num_layers: Count = 1
    """Layers of gated recurrent units."""


class NextItNetConfig(Section):
    """NextItNet alone."""

    kernel_size: Count = 3
    """Columns that a convolution reads."""
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    """Distance of the columns of each residual block's first convolution; its second has twice that."""


class CaserConfig(Section):
    """Caser alone."""

    window: Count = 5
    """Newest items in an image."""
    num_horizontal: Count = 16
    """Horizontal filters of each height from 1 to the window."""
    num_vertical: Count = 4
    """Vertical filters."""


class MFConfig(Section):
    """MF alone."""

    penalty: NonNegative = 0.0
    """λ of the squared vectors of a user, an item and a negative in the loss."""


class LightGCNConfig(Section):
    """LightGCN alone."""

    num_layers: Count = 3
    """Steps of the propagation."""
    penalty: NonNegative = 1e-4
    """λ: half of it weighs the squared vectors of layer 0 in the loss."""


class NCFConfig(Section):
    """NCF alone."""

    hidden_width: Count = 128
    """Width of the hidden layer of a tower."""


class VBPRConfig(Section):
    """VBPR alone."""

    penalty: NonNegative = 0.0
    """λ of the squared vectors and maps in the loss."""


class MoRecConfig(Section):
    """MoRec alone."""

    num_blocks: Count = 1
    """Attention blocks of its SASRec."""
    num_heads: Count = 1
    """Attention heads of its SASRec."""


class CFConfig(Section):
    """The collaborative-filtering model. Every section in it is a backbone, which `model` may name."""

    model: Annotated[
        str, Field(json_schema_extra=lambda schema: schema.update(enum=CFConfig.backbones()))
    ] = "sasrec"
    """The backbone; the section of this name has the settings that it alone has."""
    loss: Literal["sampled_softmax", "bce"] = "sampled_softmax"
    """`sampled_softmax`, or `bce` with one negative per position (the paper). MF, LightGCN, NCF and VBPR have
    losses of their own, which neither this nor `num_negatives` changes."""
    num_negatives: Count = 1024
    """Negatives of the sampled softmax, shared by a batch; `bce` always draws one per position."""
    robust_weight: NonNegative = 0.0
    """Weight of the distributionally robust loss (DROS) beside `loss`, such as .1; sequential backbones
    alone. It scores all items at every position."""
    width: Count = 128
    """Embedding width D."""
    item_init: Literal["text", "states", "random"] = "text"
    """Start of the item embeddings: the principal components of the sentence encoder's embeddings
    (`text`), those of the frozen LLM's own states of the titles (`states`), or random numbers (the papers).
    """
    dropout: Fraction = 0.5
    """Dropout rate; long, dense histories need less, such as 0.2."""
    learning_rate: Positive = 1e-3
    """Adam's learning rate."""
    beta2: Momentum = 0.999
    """Adam's second beta (0.98 in the authors' code)."""
    batch_size: Count = 128
    """Users per step."""
    epochs: Count = 60
    """Maximum number of epochs."""
    patience: Count | None = 5
    """Evaluations in a row without a better NDCG@10 of the early-stopping users before training stops; null:
    all epochs are trained, and the last weights are the result."""
    evaluate_every: Count = 2
    """Epochs between two evaluations."""
    sasrec: SASRecConfig = SASRecConfig()
    """SASRec alone."""
    gru4rec: GRU4RecConfig = GRU4RecConfig()
    """GRU4Rec alone."""
    nextitnet: NextItNetConfig = NextItNetConfig()
    """NextItNet alone."""
    caser: CaserConfig = CaserConfig()
    """Caser alone."""
    mf: MFConfig = MFConfig()
    """MF alone."""
    lightgcn: LightGCNConfig = LightGCNConfig()
    """LightGCN alone."""
    ncf: NCFConfig = NCFConfig()
    """NCF alone."""
    vbpr: VBPRConfig = VBPRConfig()
    """VBPR alone."""
    morec: MoRecConfig = MoRecConfig()
    """MoRec alone."""

    @classmethod
    def backbones(cls) -> list[str]:
        """Return the names that `model` may have: those of the sections."""
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return [name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)]

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide the model, by name: the shared ones and its backbone's own.

        The sections of other backbones decide nothing. Names without a section keep the fingerprints of
        trainings from when SASRec's settings had none.
        """
        shared = {name: value for name, value in self if not isinstance(value, Section)}
        if not self.robust_weight:  # trainings from before the setting keep their fingerprints
            del shared["robust_weight"]
        return shared | dict(getattr(self, self.model))

    def settings_of_others(self) -> dict[str, tuple[Any, Any]]:
        """Return changed settings of other backbones: `caser.window` → its value and its default."""
        return {
            f"{other}.{name}": (value, field.get_default())
            for other in self.backbones()
            if other != self.model
            for name, field in type(getattr(self, other)).model_fields.items()
            if (value := getattr(getattr(self, other), name)) != field.get_default()
        }

    @field_validator("model")
    @classmethod
    def _check_model(cls, name: str) -> str:
        if name not in cls.backbones():
            found = json.dumps(name, ensure_ascii=False)
            raise ValueError(f"cf.model: {found}, expected one of {', '.join(cls.backbones())}")
        return name

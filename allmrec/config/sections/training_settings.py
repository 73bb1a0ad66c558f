"""Settings of all parts of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from allmrec.config.sections.section import Count, Fraction, Section, without_repetition
from allmrec.parts import PARTS

if TYPE_CHECKING:
    PartName = str
else:
    PartName = Literal[tuple(PARTS)]

BlendParts = Annotated[
    tuple[PartName, ...],
    Field(min_length=1),
    without_repetition("training.blend_parts"),
]


class TrainingConfig(Section):
    """What all parts of a training share."""

    purpose: Literal["serving", "evaluation"] = "serving"
    """`serving`: a seeded share of the users have their last item held back; `evaluation`: everyone's last
    item is the test, and that share have the one before held back."""
    held_back_share: Fraction = 0.2
    """Share of users who hold back an item for stage 2, early stopping and the blend."""
    max_users: Count | None = None
    """Users that everything is trained on, a seeded sample (few-shot: 256 or 128 in the paper); null: all. An
    evaluation is about all users."""
    processes: Count = 1
    """Processes that train the CF model, and stage 2 through the LLM, together: each takes its share of every
    batch. More than one are started by Spark's TorchDistributor: on this machine where Spark's master is
    local, else as tasks of the cluster ([how](../deploy/README.md#training-with-several-processes))."""
    checkpoint_every: Count = 200
    """Steps between two checkpoints."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads in stage 2, where the LLM computes, of all processes of a machine together; 0: all cores.
    The smaller networks use one thread."""
    blend_users: Count = 5000
    """Maximum number of users that the blend without the LLM is fitted on."""
    blend_llm_users: Count = 500
    """Maximum number of users that the blend with the LLM is fitted on."""
    blend_parts: BlendParts = ("cf", "text", "alignment", "words", "brand", "together", "llm")
    """Parts that the blend weighs; training fits the weights, and the bundle keeps them."""

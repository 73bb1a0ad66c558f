"""What decides the rows of every step: the one list of it, from which a step's fingerprint is made.

A step is "already there" where the fingerprint of its record is the one of today. In it are the run date, the
settings named here, the version of the code named here, and what the step adds: the fingerprint of the step
before, the bundle, and the versions of the input tables that the date's first run pinned. Not in it is what
changes only speed, and the versions of our own tables: whether their rows are still those of the record is
looked up in the tables themselves (`allmrec.runtime.night`).
"""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import BaseModel

from allmrec.config import Config, fingerprint

CODE_VERSIONS = {"sequences": 4, "candidates": 5, "score": 5, "publish": 2, "train": 6, "evaluate": 6}
"""Raised by whoever changes the code so that a step's rows, or a training's weights, become others."""

SETTINGS: dict[str, tuple[str, ...]] = {
    "sequences": (
        "tables.interactions",
        "tables.items",
        "tables.users",
        "sequences.*",
        "importing.rating_range",
    ),
    "candidates": (
        "candidates.num_candidates",
        "candidates.text_quota",
        "candidates.rare_below",
        "candidates.exclude_seen",
    ),
    "score": (
        "seed",
        "llm.dtype",
        "scoring.mode",
        "scoring.match",
        "scoring.repetition_penalty",
        "scoring.soft_items",
        "scoring.order",
        "scoring.llm_candidates",
        "scoring.top_k",
        "scoring.active_within_days",
    ),
    "publish": ("publish.*", "scoring.top_k"),
    "train": (
        "seed",
        "tables.interactions",
        "tables.items",
        "importing.rating_range",
        "sequences.*",
        "candidates.num_candidates",
        "candidates.text_quota",
        "candidates.rare_below",
        "candidates.exclude_seen",
        "text_encoder.*",
        "cf.*",
        "stage1.*",
        "stage2.*",
        "training.purpose",
        "training.held_back_share",
        "training.max_users",
        "training.processes",  # each draws its own dropout
        "training.row_group_rows",
        "training.blend_users",
        "training.blend_llm_users",
        "training.blend_parts",
        "llm.dtype",
        "prompt.*",
    ),
    "evaluate": (
        "seed",
        "llm.dtype",
        "evaluation.*",
        "candidates.num_candidates",
        "candidates.text_quota",
        "candidates.rare_below",
        "candidates.exclude_seen",
        "scoring.mode",
        "scoring.match",
        "scoring.repetition_penalty",
        "scoring.soft_items",
        "scoring.order",
        "scoring.llm_candidates",
    ),
}
"""Settings that decide a step's rows, by step; `section.*` is every key of it."""

DECIDED_ELSEWHERE = {
    "tables.root": "where the tables lie",
    "importing.*": "rows are chosen when they are imported",
    "llm.model": "its content is: the bundle holds the hash of its weights",
    "scoring.bundle_id": "the bundle is",
}
"""Settings in no fingerprint, though rows depend on them by another way."""

DECIDES_NOTHING = (
    "tables.schema_name",
    "candidates.chunk_users",
    "candidates.block_items",
    "training.checkpoint_every",
    "training.num_threads",
    "llm.device",
    "llm.cache",
    "scoring.chunk_users_without_llm",
    "scoring.num_threads",
    "scoring.deadline",
    "gates.*",
    "maintenance.*",
    "reporting.*",
    "spark.*",
)
"""Settings that change speed, rounding or what is said. A deadline decides who is late, not what is right."""

DECIDES_IN_16_BITS = ("scoring.chunk_users", "scoring.token_budget")
"""Settings that decide which users share a pass of the LLM. In 32 bits that is rounding (1e-5 nats). In 16
bits it moves a score by tenths of a nat on a GPU, so they decide the rows of `score` and `evaluate` there."""


def step_fingerprint(step: str, config: Config, run_date: date, **inputs: Any) -> str:
    """Return the fingerprint of a step's rows; `inputs` are what it adds to settings, code and run date."""
    settings = decisive_settings(step, config)
    return fingerprint(
        step=step, code=CODE_VERSIONS[step], run_date=str(run_date), settings=settings, **inputs
    )


def decisive_settings(step: str, config: Config) -> dict[str, Any]:
    """Return the settings that decide the step's rows, by path."""
    names = SETTINGS[step]
    if step in ("score", "evaluate") and config.llm.dtype in ("bfloat16", "float16"):
        names += DECIDES_IN_16_BITS
    return {path: value for path, value in leaves(config).items() if is_named(path, names)}


def leaves(config: Config) -> dict[str, Any]:
    """Return every setting of a configuration by its path, such as `scoring.top_k`."""
    found: dict[str, Any] = {}
    for section, value in config:
        if isinstance(value, BaseModel):
            found |= {f"{section}.{key}": inner for key, inner in value}
        else:
            found[section] = value
    return found


def is_named(path: str, names: tuple[str, ...]) -> bool:
    """Return whether a setting is one of `names`, by itself or by its section's `*`."""
    return path in names or f"{path.partition('.')[0]}.*" in names

"""Inputs that decide the rows of every step: its fingerprint.

A step is skipped if the fingerprint of its record equals today's. The fingerprint contains the run date, the
settings and the version of the code below, and inputs that the step adds: the fingerprint of the step before,
the bundle, and the versions of the input tables that the date's first run pinned. Settings of speed are not
in it. Versions of our own tables are not in it either, because `allmrec.runtime.night` compares their rows
with the record.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from allmrec.config import Config, Section, fingerprint
from allmrec.config.former import FIXED
from allmrec.config.renamed import RENAMED

CODE_VERSIONS = {"sequences": 4, "candidates": 5, "score": 6, "publish": 4, "train": 6, "evaluate": 6}
"""Versions of the code. A change of a step's rows, or of a training's weights, raises the number."""

SETTINGS: dict[str, tuple[str, ...]] = {
    "sequences": (
        "tables.interactions",
        "tables.items",
        "tables.users",
        "sequences.*",
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
        "scoring.rerankers",
        "scoring.llm_candidates",
        "scoring.top_k",
        "scoring.active_within_days",
    ),
    "publish": (
        "publish.email_slots",
        "publish.feed_slots",
        "publish.diversity",
        "publish.duplicate_above",
        "publish.max_per",
        "publish.not_again_days",
        "publish.feed_not_again_days",
        "publish.not_like_last_days",
        "publish.item_columns",
        "publish.recipients",
        "publish.arms",
        "publish.arms_seed",
        "scoring.top_k",
    ),
    "train": (
        "seed",
        "tables.interactions",
        "tables.items",
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
        "training.processes",  # each process draws its own dropout
        "training.row_group_rows",  # a constant now
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
        "scoring.rerankers",
        "scoring.llm_candidates",
    ),
}
"""Settings that decide a step's rows, by step. `section.*` is every key of a section."""

WITHOUT_EFFECT_IF_EMPTY = (
    "scoring.rerankers",
    "publish.item_columns",
    "publish.recipients",
    "publish.arms",
    "publish.arms_seed",
)
"""Settings that fingerprints contain only with a value: those of nights before the setting stay the same."""

DECIDED_ELSEWHERE = {
    "tables.root": "the place of the tables, not their rows",
    "importing.*": "imports choose the rows",
    "llm.model": "the bundle contains the hash of its weights",
    "publish.rules": "the rules that apply on the run date are in the fingerprint",
    "tables.rules": "the same",
    "bundle.id": "the bundle itself is in the fingerprint",
}
"""Settings in no fingerprint although rows depend on them, with the reason."""

DECIDES_NOTHING = (
    "tables.schema_name",
    "training.checkpoint_every",
    "training.num_threads",
    "llm.device",
    "cache.folder",
    "scoring.num_threads",
    "scoring.deadline",
    "gates.*",
    "maintenance.*",
    "reporting.*",
    "spark.*",
)
"""Settings of speed, rounding or reports. A deadline decides which users are late, not their right lists."""

DECIDES_IN_16_BITS = ("scoring.chunk_users", "llm.token_budget")
"""Settings that decide which users share a pass of the LLM.

In 32 bits they change only the rounding (1e-5 nats). In 16 bits on a GPU they move a score by tenths of a
nat, so that they decide the rows of `score` and `evaluate` there.
"""


_FORMER_NAMES = {new: old for old, new in RENAMED.items()}


def step_fingerprint(step: str, config: Config, run_date: date, **inputs: Any) -> str:
    """Return the fingerprint of a step's rows; `inputs` are the step's additions."""
    settings = decisive_settings(step, config)
    return fingerprint(
        step=step, code=CODE_VERSIONS[step], run_date=str(run_date), settings=settings, **inputs
    )


def decisive_settings(step: str, config: Config) -> dict[str, Any]:
    """Return the settings that decide the step's rows, by the path of their first name.

    A constant that was a setting (`FIXED`) is among them.
    """
    names = SETTINGS[step]
    if step in ("score", "evaluate") and config.llm.dtype in ("bfloat16", "float16"):
        names += DECIDES_IN_16_BITS
    decisive = {
        path: value
        for path, value in leaves(config).items()
        if is_named(path, names) and (value or path not in WITHOUT_EFFECT_IF_EMPTY)
    }
    constants = {path: value for path, value in FIXED.items() if is_named(path, names)}
    # Former names keep the fingerprints of nights and trainings that exist.
    return constants | {_FORMER_NAMES.get(path, path): value for path, value in decisive.items()}


def leaves(config: Config) -> dict[str, Any]:
    """Return every setting of a configuration by its path, such as `scoring.top_k`.

    Of a section those of `Section.decisive`: of the backbones the chosen one, as `cf.num_blocks`.
    """
    found: dict[str, Any] = {}
    for section, value in config:
        if isinstance(value, Section):
            found |= {f"{section}.{key}": inner for key, inner in value.decisive().items()}
        else:
            found[section] = value
    return found


def is_named(path: str, names: tuple[str, ...]) -> bool:
    """Return whether `names` contains a setting, or the `*` of its section."""
    return path in names or f"{path.partition('.')[0]}.*" in names

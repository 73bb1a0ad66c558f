"""The condition of an evaluation: shorter histories, worse texts, another shop.

Its name distinguishes the rows of one bundle's evaluations: `history_3`, `missing_text`, or several joined by
`+`. The plain evaluation has an empty name.
"""

from __future__ import annotations

import pandas as pd

from allmrec.bundle import Bundle, extend_bundle, transferred_bundle
from allmrec.cache import cache_folder
from allmrec.config import Config
from allmrec.evaluation.spoiled_text import spoiled
from allmrec.llm.frozen import FrozenLLM
from allmrec.models.text_encoder import TextEncoder

LEAVE_ONE_OUT = "leave_one_out"
"""The stored name of the plain evaluation: every user's last item."""
WORDS = {
    "other_shop": "a bundle of another shop, which knows the items by their texts alone",
    "noisy_text": "texts with lost and misspelled words",
    "missing_text": "no titles, no descriptions",
    "sbert": "texts in place of joint embeddings",
    "generate": "the LLM decodes one title",
    "free": "the LLM writes freely",
}
"""A condition, without its number, in words."""


def condition_of(config: Config) -> str:
    """Return the name of the configured condition; empty for the plain one."""
    settings = config.evaluation
    parts = []
    if settings.trained_on is not None:
        parts.append("other_shop")
    if settings.max_history is not None:
        parts.append(f"history_{settings.max_history}")
    if settings.text != "whole":
        share = "" if settings.text_share == 1.0 else f"_{settings.text_share:g}"
        parts.append(f"{settings.text}_text{share}")
    if config.scoring.soft_items == "text":
        parts.append("sbert")
    if config.scoring.mode != "rank":
        parts.append(config.scoring.mode)
    return "+".join(parts)


def changes_items(config: Config) -> bool:
    """Return whether items or texts differ from those of the training."""
    return config.evaluation.trained_on is not None or config.evaluation.text != "whole"


def with_items(bundle: Bundle, catalogue: pd.DataFrame, config: Config, llm: FrozenLLM) -> Bundle:
    """Return the bundle with the items of `catalogue` (item_id, title, description).

    Their texts are spoiled if the settings ask for it. Items of another shop replace the bundle's.
    """
    settings = config.evaluation
    cache = cache_folder(config.cache)
    if settings.text != "whole":
        catalogue = spoiled(catalogue, settings.text, settings.text_share, config.seed)
    encoder = TextEncoder.load(bundle.config.text_encoder, cache, bundle.text_encoder_folder)
    change = extend_bundle if settings.trained_on is None else transferred_bundle
    return change(bundle, catalogue, encoder, llm, cache / "bundles")


def scenario_of(condition: str, group: str) -> str:
    """Return the scenario in `evaluation_results` of a group under a condition."""
    return f"{condition}/{group}" if condition else group


def condition_and_group(scenario: str) -> tuple[str, str]:
    """Return the condition and the group of users of a scenario."""
    condition, _, group = scenario.rpartition("/")
    return condition, group


def in_words(condition: str) -> str:
    """Return a condition as a phrase; empty for the plain one."""
    return ", ".join(_part_in_words(part) for part in condition.split("+") if part)


def _part_in_words(part: str) -> str:
    """Return one part of a condition as a phrase."""
    name, _, number = part.rpartition("_")
    if name == "history":
        return f"histories cut to {number} items"
    if part in WORDS:
        return WORDS[part]
    return f"{float(number) * 100:g} % of the items: {WORDS[name]}"

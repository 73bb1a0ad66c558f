"""Scenarios: filters over the same stored predictions (A-LLMRec, section 5.3: warm and cold items)."""

from __future__ import annotations

import numpy as np
import pandas as pd

SCENARIOS = ("all", "found", "warm", "middle", "cold")
"""Every user; users whose target retrieval found; users whose target is a warm, middle or cold item."""


def warm_cold(num_interactions: np.ndarray, share: float) -> np.ndarray:
    """Return `warm`, `middle` or `cold` per item, [I] str, by its interactions in training, [I] int.

    Warm and cold are the top and bottom `share` of the items.

    Items with equal counts stay together and go where the middle of their group lies, so that the cut does
    not depend on the order of
    ids: 60 % of items without any interaction are cold together (their middle, 30 %, is below a share of
    35 %), and if all items are equal, all are middle.
    """
    counts = np.asarray(num_interactions)
    position = (pd.Series(counts).rank(method="average").to_numpy() - 0.5) / max(len(counts), 1)
    return np.where(position < share, "cold", np.where(position > 1.0 - share, "warm", "middle"))


def scenario_rows(target_classes: np.ndarray, ranks: np.ndarray, scenario: str) -> np.ndarray:
    """Return the users of a scenario, [B] bool.

    It depends on the class of their target, [B] object, and its rank, [B] float, infinite where it is not
    among the candidates.
    """
    if scenario == "found":
        return np.isfinite(ranks)
    classes = np.asarray(target_classes, dtype=object)
    return np.ones(len(classes), dtype=bool) if scenario == "all" else classes == scenario

"""Scenarios: filters of stored predictions (A-LLMRec, section 5.3)."""

from __future__ import annotations

import numpy as np
import pandas as pd

SCENARIOS = ("all", "found", "warm", "middle", "cold")
"""All users. Users whose target was found by retrieval; users with a warm, middle or cold target."""


def warm_cold(num_interactions: np.ndarray, share: float) -> np.ndarray:
    """Return `warm`, `middle` or `cold` per item, [I] str.

    Warm and cold are the top and bottom `share` of the items, by interactions in training, [I] int.

    Items with equal counts have the class of the middle of their group, so that the cut does not depend on
    the order of ids: 60 % of items without any interaction are cold together (their middle, 30 %, is below a
    share of 35 %), and if all items are equal, all are middle.
    """
    counts = np.asarray(num_interactions)
    position = (pd.Series(counts).rank(method="average").to_numpy() - 0.5) / max(len(counts), 1)
    return np.where(position < share, "cold", np.where(position > 1.0 - share, "warm", "middle"))


def scenario_rows(target_classes: np.ndarray, ranks: np.ndarray, scenario: str) -> np.ndarray:
    """Return the users of a scenario, [B] bool.

    A scenario depends on the class of their target, [B] object, and its rank, [B] float, infinite if it is no
    candidate.
    """
    if scenario == "found":
        return np.isfinite(ranks)
    classes = np.asarray(target_classes, dtype=object)
    return np.ones(len(classes), dtype=bool) if scenario == "all" else classes == scenario

"""Scenarios: filters over the same stored predictions (A-LLMRec §5.3: warm and cold items)."""

from __future__ import annotations

import numpy as np
import pandas as pd

SCENARIOS = ("all", "warm", "middle", "cold")
"""Every user; users whose target is a warm, middle or cold item."""


def warm_cold(num_interactions: np.ndarray, share: float) -> np.ndarray:
    """Return `warm`, `middle` or `cold` of every item [I]: the top and bottom `share` of items by interactions in training.

    Items with equal counts stay together and go where the middle of their group lies, so that the cut does not depend on the order of ids: 60 %
    of items without any interaction are cold together (their middle, 30 %, is below a share of 35 %), and if all items are equal, all are middle.
    """
    counts = np.asarray(num_interactions)
    position = (pd.Series(counts).rank(method="average").to_numpy() - 0.5) / max(len(counts), 1)
    return np.where(position < share, "cold", np.where(position > 1.0 - share, "warm", "middle"))


def scenario_rows(target_labels: np.ndarray, scenario: str) -> np.ndarray:
    """Return bool [N]: the users of a scenario, by their target's label."""
    labels = np.asarray(target_labels, dtype=object)
    return np.ones(len(labels), dtype=bool) if scenario == "all" else labels == scenario

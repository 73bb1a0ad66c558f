"""What orders the lists of a night, before any re-ranker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ServedScores:
    """What orders the lists of B users with up to C candidates."""

    scores: np.ndarray
    """[B, C] float64, −inf beyond a user's candidates."""
    temperatures: np.ndarray
    """[B] float64; probability = recall · softmax(score / temperature); NaN: popular lists have none."""
    sources: np.ndarray
    """[B] object: llm, cf or popular."""
    reasons: np.ndarray
    """[B] object: why a user did not get what the settings say, else None."""

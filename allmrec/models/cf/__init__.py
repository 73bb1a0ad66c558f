"""Collaborative-filtering backbones behind one contract (`base.CFModel`)."""

from __future__ import annotations

from allmrec.config import CFConfig
from allmrec.models.cf.base import CFModel
from allmrec.models.cf.sasrec import SASRec

__all__ = ["CFModel", "SASRec", "build_cf_model"]


def build_cf_model(config: CFConfig, num_items: int, max_history: int) -> CFModel:
    """Return an untrained backbone of `config.model` for items 1..num_items.

    Histories hold at most `max_history` items.
    """
    return SASRec(
        num_items,
        max_history,
        config.width,
        config.num_blocks,
        config.num_heads,
        config.dropout,
        config.network,
    )

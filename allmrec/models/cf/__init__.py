"""Collaborative-filtering backbones behind one contract (`base.CFModel`)."""

from __future__ import annotations

from importlib import import_module

from allmrec.config import CFConfig
from allmrec.models.cf.base import Backbone, Catalogue, CFModel
from allmrec.models.cf.sasrec import SASRec

__all__ = ["BACKBONES", "Backbone", "CFModel", "Catalogue", "SASRec", "build_cf_model"]

BACKBONES: dict[str, Backbone] = {
    name: import_module(f"{__name__}.{name}").BACKBONE for name in CFConfig.backbones()
}
"""The backbones by name. A section of `CFConfig` names one, and the file of that name here has it."""


def build_cf_model(config: CFConfig, num_items: int, max_history: int) -> CFModel:
    """Return an untrained backbone of `config.model` for items 1..num_items.

    Histories hold at most `max_history` items.
    """
    return BACKBONES[config.model].build(config, Catalogue(num_items, max_history))

"""Rows of an input table or file parted into good ones and rejected ones, as every step parts them."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

from allmrec.data import interactions as log
from allmrec.data import items as catalogue
from allmrec.data.interactions import split_rejected


def validated(interactions: DataFrame, items: DataFrame | None, **how: Any) -> tuple[DataFrame, DataFrame]:
    """Return (good, rejected) interactions."""
    return split_rejected(log.tagged(interactions, items, **how), "interactions", log.COLUMNS)


def validated_items(items: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Return (good, rejected) items."""
    return split_rejected(catalogue.tagged_items(items), "items", catalogue.COLUMNS)

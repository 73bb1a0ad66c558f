"""Good and rejected rows of an input table or file, parted as every step parts them."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame

from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.rejection import split_rejected


def validated(
    interactions: DataFrame, items: DataFrame | None, **options: Any
) -> tuple[DataFrame, DataFrame]:
    """Return (good, rejected) interactions; `options` are those of `interactions.tagged`."""
    return split_rejected(events.tagged(interactions, items, **options), "interactions", events.COLUMNS)


def validated_items(items: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Return (good, rejected) items."""
    return split_rejected(catalogue.tagged_items(items), "items", catalogue.COLUMNS)

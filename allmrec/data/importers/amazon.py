"""Amazon reviews and metadata of 2014, 2018 and 2023."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.files.found import Copies
from allmrec.data.importers.reading import Task, fields_of, read_table
from allmrec.errors import InputError

_REVIEWS = {
    "user_id": ("reviewerID", "user_id"),
    "item_id": ("parent_asin", "asin"),
    "event_time": ("unixReviewTime", "timestamp"),
    "rating": ("overall", "rating"),
}
"""The tables' columns → those of the releases.

Since 2023 the parent is the item, because its variants share the metadata.
"""
_METADATA = {
    "item_id": ("parent_asin", "asin"),
    "title": ("title",),
    "description": ("description",),
    "categories": ("categories", "category"),
}
_OF_2023 = {"features": (("features",), "prose"), "main_category": (("main_category",), "text")}
_ADVICE = "give a release of 2014, 2018 or 2023 as it was published"


def read_amazon(
    spark: SparkSession,
    reviews: str | None,
    metadata: str | None,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
    copies: Copies | None = None,
) -> tuple[DataFrame | None, DataFrame]:
    """Return (interactions, items) of a review file and its metadata file.

    Interactions are None without reviews. Rows have `raw` and `problem`. Raises InputError where a file is
    missing or of another release, or metadata is not given, because items need titles.
    """
    if metadata is None:
        raise InputError(
            f"{reviews}: Amazon reviews without metadata, "
            "expected the meta_….json.gz of the same category too: the items' titles are in it"
        )
    copies = copies or Copies.of_this_process(spark)
    interactions = None
    if reviews is not None:
        fields = fields_of("interactions", _REVIEWS)
        interactions = read_table(copies, Task(reviews, "interactions", fields, config, report, _ADVICE))
    fields = fields_of("items", _METADATA, _OF_2023)
    items = read_table(copies, Task(metadata, "items", fields, config, report, _ADVICE))
    return interactions, _of_2023(items)


def _of_2023(items: DataFrame) -> DataFrame:
    """Return the items with features and category of 2023 merged in."""
    description = F.nullif(F.concat_ws(" ", F.nullif(F.col("features"), F.lit("")), "description"), F.lit(""))
    has_path = F.coalesce(F.size("categories") > 0, F.lit(False))
    categories = F.when(has_path | F.col("main_category").isNull(), F.col("categories")).otherwise(
        F.array("main_category")
    )
    return items.withColumns({"description": description, "categories": categories}).drop(*_OF_2023)

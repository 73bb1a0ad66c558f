"""Amazon reviews and metadata in their original files: the 2018 form (JSON) and the 2014 form.

In the 2014 form the lines of metadata are Python literals.
"""

from __future__ import annotations

import ast
import json

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import ImportingConfig
from allmrec.data.importers.lines import CORRUPT, parse_json, read_lines, require
from allmrec.data.importers.mapped import category_path, joined_text
from allmrec.errors import InputError

_REVIEW_COLUMNS = {
    "reviewerID": "user_id",
    "asin": "item_id",
    "unixReviewTime": "event_time",
    "overall": "rating",
}
_METADATA_COLUMNS = ("asin", "title", "description", "category", "categories")


def read_amazon(
    spark: SparkSession, reviews: str | None, metadata: str | None, config: ImportingConfig
) -> tuple[DataFrame | None, DataFrame]:
    """Return (interactions, items) of a review file and its metadata file, compressed or not.

    Interactions are None without reviews. Rows carry `raw` and `problem`. Raises InputError where a file is
    missing, or metadata is not given: without titles nothing can be recommended by text.
    """
    if metadata is None:
        raise InputError(
            f"{reviews}: Amazon reviews without metadata, "
            "expected the meta_….json.gz of the same category too: the items' titles are in it"
        )
    interactions = None if reviews is None else _read_reviews(spark, require(spark, reviews))
    return interactions, _read_metadata(spark, require(spark, metadata), config)


def _read_reviews(spark: SparkSession, path: str) -> DataFrame:
    rows = parse_json(read_lines(spark, path), tuple(_REVIEW_COLUMNS))
    return rows.withColumnsRenamed(_REVIEW_COLUMNS).withColumn("event_type", F.lit(None).cast("string"))


def _read_metadata(spark: SparkSession, path: str, config: ImportingConfig) -> DataFrame:
    lines = read_lines(spark, path)
    # 2014: {'asin': '0001', …}. Only lines that are no JSON go through Python.
    not_json = F.from_json("value", f"asin string, {CORRUPT} string")[CORRUPT].isNotNull()
    literal = F.when(not_json, F.col("value"))
    lines = lines.withColumn("value", F.coalesce(_literals_to_json(literal), F.col("value")))
    rows = parse_json(lines, _METADATA_COLUMNS)
    category = category_path(F.coalesce("categories", "category"), "string", config.category_separator)
    return rows.select(
        F.col("asin").alias("item_id"),
        "title",
        joined_text(F.col("description"), "string").alias("description"),
        category.alias("categories"),
        F.lit(None).cast("string").alias("available"),
        F.lit(None).cast("string").alias("updated_at"),
        "raw",
        "problem",
    )


@F.pandas_udf(T.StringType())  # type: ignore[call-overload]
def _literals_to_json(lines: pd.Series) -> pd.Series:
    """Return every line as JSON, null where it is no literal of a dict; null stays null."""
    return lines.map(literal_to_json, na_action="ignore")


def literal_to_json(line: str) -> str | None:
    """Return a line that is a Python dict literal as JSON, or None where it is not one.

    No code in the line is run (`ast.literal_eval`).
    """
    try:
        value = ast.literal_eval(line)
        return json.dumps(value) if isinstance(value, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None

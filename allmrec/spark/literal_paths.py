"""Literal paths for Spark's readers, which read a path as a pattern."""

from __future__ import annotations

import re

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

_SIGNS = re.compile(r"([\[\]{}*?\\])")
"""Characters with a meaning in Hadoop's patterns."""


def read_parquet(spark: SparkSession, *uris: str, schema: T.StructType | None = None) -> DataFrame:
    """Return the rows of Parquet files or folders with literal paths.

    Without a `schema` the schema of the files is used. Raises Spark's AnalysisException where a path does not
    exist.
    """
    reader = spark.read if schema is None else spark.read.schema(schema)
    return reader.parquet(*map(literal, uris))


def literal(uri: str) -> str:
    """Return a URI with the characters of Hadoop's patterns escaped."""
    return _SIGNS.sub(r"\\\1", uri)

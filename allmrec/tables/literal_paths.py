"""Files by their own paths: Spark's readers take a path for a pattern."""

from __future__ import annotations

import re

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

_SIGNS = re.compile(r"([\[\]{}*?\\])")
"""What a pattern of Hadoop's gives a meaning to."""


def read_parquet(spark: SparkSession, *uris: str, schema: T.StructType | None = None) -> DataFrame:
    """Return the rows of Parquet files or folders; `[`, `{`, `*` and `?` in a path mean themselves.

    Without a `schema` the files have it. Raises Spark's AnalysisException for a path that does not exist.
    """
    reader = spark.read if schema is None else spark.read.schema(schema)
    return reader.parquet(*map(literal, uris))


def literal(uri: str) -> str:
    """Return a URI in which the signs of Hadoop's patterns mean themselves."""
    return _SIGNS.sub(r"\\\1", uri)

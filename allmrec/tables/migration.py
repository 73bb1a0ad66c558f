"""Migration of our own tables: an older table gets the newer columns."""

from __future__ import annotations

from pyspark.sql import SparkSession

from allmrec.tables.specification import TableSpec
from allmrec.tables.sql_text import delta_at


def migrate(spark: SparkSession, spec: TableSpec, path: str) -> None:
    """Add the specified columns that the table lacks, in one commit.

    Older rows have null there. Required columns are not added, because reading and writing report them.
    """
    there = set(spark.read.format("delta").load(path).columns)
    missing = [column for column in spec.columns if column.name not in there and not column.required]
    if missing:
        columns = ", ".join(f"`{column.name}` {column.type.simpleString()}" for column in missing)
        spark.sql(f"ALTER TABLE {delta_at(path)} ADD COLUMNS ({columns})")

"""Our own tables as an older version of this program left them: they get the columns that are new since."""

from __future__ import annotations

from pyspark.sql import SparkSession

from allmrec.tables.specification import TableSpec
from allmrec.tables.sql_text import delta_at


def migrate(spark: SparkSession, spec: TableSpec, path: str) -> None:
    """Add the specified columns that the table at `path` lacks, in one commit.

    Rows of before have null there. Required columns are not added: reading and writing the table names them.
    """
    there = set(spark.read.format("delta").load(path).columns)
    missing = [column for column in spec.columns if column.name not in there and not column.required]
    if missing:
        columns = ", ".join(f"`{column.name}` {column.type.simpleString()}" for column in missing)
        spark.sql(f"ALTER TABLE {delta_at(path)} ADD COLUMNS ({columns})")

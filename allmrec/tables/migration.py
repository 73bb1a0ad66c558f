"""Migration of our own tables: an older table gets the newer columns."""

from __future__ import annotations

from collections.abc import Iterator

from pyspark.sql import SparkSession
from pyspark.sql import types as T

from allmrec.tables.specification import TableSpec
from allmrec.tables.sql_text import delta_at


def migrate(spark: SparkSession, spec: TableSpec, path: str) -> None:
    """Add the specified columns that the table lacks, in one commit.

    Fields of structs are added too. Older rows have null there. Required columns are not added, because
    reading and writing report them.
    """
    missing = list(_missing(spec, spark.read.format("delta").load(path).schema))
    if missing:
        columns = ", ".join(f"{name} {kind.simpleString()}" for name, kind in missing)
        spark.sql(f"ALTER TABLE {delta_at(path)} ADD COLUMNS ({columns})")


def _missing(spec: TableSpec, there: T.StructType) -> Iterator[tuple[str, T.DataType]]:
    """Yield the name in SQL and the type of every column and field to add."""
    for column in spec.columns:
        name = f"`{column.name}`"
        if column.name in there.names:
            yield from _missing_fields(name, column.type, there[column.name].dataType)
        elif not column.required:
            yield name, column.type


def _missing_fields(name: str, expected: T.DataType, actual: T.DataType) -> Iterator[tuple[str, T.DataType]]:
    """Yield the fields that the structs in a column lack. `name` is the column's name in SQL."""
    if isinstance(expected, T.ArrayType) and isinstance(actual, T.ArrayType):
        yield from _missing_fields(f"{name}.element", expected.elementType, actual.elementType)
    elif isinstance(expected, T.StructType) and isinstance(actual, T.StructType):
        for field in expected:
            inner = f"{name}.`{field.name}`"
            if field.name in actual.names:
                yield from _missing_fields(inner, field.dataType, actual[field.name].dataType)
            else:
                yield inner, field.dataType

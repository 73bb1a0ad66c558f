"""The rows that a merge would change.

Only these rows are written, so that a merge without changes makes no commit.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.tables.specification import TableSpec


def changed_rows(spec: TableSpec, rows: DataFrame, target: DataFrame, update: bool) -> DataFrame:
    """Return the `rows` whose key is new in `target`. With `update` also changed rows.

    `rows` and `target` have exactly the table's columns. Every key occurs at most once in `target`. Nulls in
    a key are equal.
    """
    old = target.select(*(F.col(name).alias(f"_old_{name}") for name in spec.schema.fieldNames()))
    has_key = F.lit(True)
    for name in spec.key:
        has_key = has_key & same_key(spec, name, F.col(name), F.col(f"_old_{name}"))
    others = [column for column in spec.schema if column.name not in spec.key]
    if not update or not others:
        return rows.join(old, has_key, "left_anti")
    same = F.lit(True)
    for column in others:
        new_value = F.col(column.name)
        old_value = F.col(f"_old_{column.name}")
        same = same & _comparable(new_value, column).eqNullSafe(_comparable(old_value, column))
    joined = rows.join(old.withColumn("_known", F.lit(True)), has_key, "left")
    return joined.where(F.col("_known").isNull() | ~same).select(*rows.columns)


def same_key(spec: TableSpec, name: str, left: Column, right: Column) -> Column:
    """Return whether two values of a key column are equal. Nulls in a nullable column are."""
    return left.eqNullSafe(right) if spec.schema[name].nullable else left == right


def _comparable(value: Column, column: T.StructField) -> Column:
    """Return a comparable value: a map's sorted entries, else the value."""
    return F.array_sort(F.map_entries(value)) if isinstance(column.dataType, T.MapType) else value

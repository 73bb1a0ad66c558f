"""The specified columns of a frame, in the order and of the types that its table has."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from allmrec.errors import TableError
from allmrec.tables.specification import ColumnSpec, TableSpec


def as_read(spec: TableSpec, frame: DataFrame, path: str) -> DataFrame:
    """Return the table's columns of `frame`, which was read at `path`; further columns are left out.

    It may lack the columns that are not required (they are null then): an input table never had them, or an
    older version of this program wrote the table. Any number is taken for a DOUBLE. Raises TableError where
    another column is missing or has another type.
    """
    return _selected(spec, frame, path, widens=True)


def to_write(spec: TableSpec, rows: DataFrame) -> DataFrame:
    """Return `rows` with the table's columns; those that are not required are null where `rows` lack them.

    Raises TableError where another column is missing, or one is extra or of another type.
    """
    extra = sorted(set(rows.columns) - set(spec.schema.fieldNames()))
    if extra:
        raise TableError(
            f"{spec.name}: columns {', '.join(extra)} to be written, which the table does not have; drop them"
        )
    return _selected(spec, rows, "the rows to be written", widens=False)


def _selected(spec: TableSpec, frame: DataFrame, source: str, *, widens: bool) -> DataFrame:
    """Return the table's columns of `frame`; `source` says in errors where the frame comes from."""
    types = {column.name: column.dataType for column in frame.schema}
    # As SQL texts it is one call of the JVM, and not several for every column.
    columns: list[str] = []
    for column in spec.columns:
        actual, expected = types.get(column.name), column.type.simpleString()
        if actual is None:
            if column.required:
                raise TableError(
                    f"{spec.name}: no column {column.name} in {source}, "
                    f"expected {column.name} {expected}; add it"
                )
            columns.append(f"CAST(NULL AS {expected}) AS `{column.name}`")
        elif actual.simpleString() == expected:
            columns.append(f"`{column.name}`")
        elif widens and _is_number_for(column, actual):
            columns.append(f"CAST(`{column.name}` AS DOUBLE) AS `{column.name}`")
        else:
            raise TableError(
                f"{spec.name}: column {column.name} is {actual.simpleString()} in {source}, "
                f"expected {expected}; cast it"
            )
    return frame.selectExpr(*columns)


def _is_number_for(column: ColumnSpec, actual: T.DataType) -> bool:
    """Return whether `actual` is a type of numbers and the column holds DOUBLEs."""
    return isinstance(column.type, T.DoubleType) and isinstance(actual, T.NumericType)

"""A frame's columns in the order and types of its table."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from allmrec.errors import TableError
from allmrec.tables.specification import ColumnSpec, TableSpec


def as_read(spec: TableSpec, frame: DataFrame, path: str) -> DataFrame:
    """Return the table's columns of `frame`, which was read at `path`.

    Further columns are dropped. Optional columns, and fields of structs, that `frame` lacks are null: an
    input table may never have had them, and tables of an older version lack newer ones. Any number is cast to
    a DOUBLE column. Raises TableError where a required column is missing, or a column has another type.
    """
    return _selected(spec, frame, path, widens=True)


def to_write(spec: TableSpec, rows: DataFrame) -> DataFrame:
    """Return `rows` with the table's columns; missing optional columns are null.

    Raises TableError where a required column is missing, or a column is extra or of another type.
    """
    extra = sorted(set(rows.columns) - set(spec.schema.fieldNames()))
    if extra:
        raise TableError(
            f"{spec.name}: columns {', '.join(extra)} to be written, which the table does not have; drop them"
        )
    return _selected(spec, rows, "the rows to be written", widens=False)


def _selected(spec: TableSpec, frame: DataFrame, source: str, *, widens: bool) -> DataFrame:
    """Return the table's columns of `frame`; `source` is its name in errors."""
    types = {column.name: column.dataType for column in frame.schema}
    # SQL texts need one call of the JVM; columns need several each.
    columns: list[str] = []
    for column in spec.columns:
        actual = types.get(column.name)
        expected = column.type.simpleString()
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
        elif widens and (whole := _with_all_fields(f"`{column.name}`", column.type, actual)):
            columns.append(f"{whole} AS `{column.name}`")
        else:
            raise TableError(
                f"{spec.name}: column {column.name} is {actual.simpleString()} in {source}, "
                f"expected {expected}; cast it"
            )
    return frame.selectExpr(*columns)


def _is_number_for(column: ColumnSpec, actual: T.DataType) -> bool:
    """Return whether the column holds DOUBLEs and `actual` is numeric."""
    return isinstance(column.type, T.DoubleType) and isinstance(actual, T.NumericType)


def _with_all_fields(value: str, expected: T.DataType, actual: T.DataType) -> str | None:
    """Return a value (SQL) whose structs have the expected fields, missing ones as null.

    Returns None where the types differ in another way.
    """
    if actual.simpleString() == expected.simpleString():
        return value
    if isinstance(expected, T.ArrayType) and isinstance(actual, T.ArrayType):
        element = _with_all_fields("one", expected.elementType, actual.elementType)
        return element and f"transform({value}, one -> {element})"
    if not isinstance(expected, T.StructType) or not isinstance(actual, T.StructType):
        return None
    if not set(actual.names) <= set(expected.names):
        return None
    fields = []
    for field in expected:
        text: str | None = f"CAST(NULL AS {field.dataType.simpleString()})"
        if field.name in actual.names:
            text = _with_all_fields(f"{value}.`{field.name}`", field.dataType, actual[field.name].dataType)
        if text is None:
            return None
        fields.append(f"'{field.name}', {text}")
    return f"IF({value} IS NULL, NULL, named_struct({', '.join(fields)}))"

"""Description of a table: its columns, key, partitioning and constraints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import types as T


@dataclass(frozen=True)
class ColumnSpec:
    """One column; `description` is a phrase in Markdown, without a period."""

    name: str
    type: T.DataType
    description: str
    required: bool = True
    """False: null is allowed, and an input table may lack the column, which then reads as null."""


@dataclass(frozen=True)
class Constraint:
    """A CHECK constraint of Delta; `description` names the rows that it accepts."""

    name: str
    condition: str
    """SQL."""
    description: str


@dataclass(frozen=True)
class TableSpec:
    """One Delta table: a folder `<tables.root>/<name>`. `description` is a sentence about a row."""

    name: str
    description: str
    columns: tuple[ColumnSpec, ...]
    key: tuple[str, ...]
    partitioned_by: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    owned: bool = True
    """Whether only this program writes it.

    NOT NULL and CHECK are enforced on owned tables only, because an input table may contain bad rows.
    """

    @cached_property
    def schema(self) -> T.StructType:
        """Spark's schema: the columns in their order, required ones not nullable."""
        return T.StructType(
            [T.StructField(column.name, column.type, not column.required) for column in self.columns]
        )

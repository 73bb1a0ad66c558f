"""How a table is described: its columns, key, partitioning and constraints."""

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
    """False: it may be null, and an input table may lack it (it then reads as null)."""


@dataclass(frozen=True)
class Constraint:
    """A CHECK constraint that Delta enforces; `description` says in words which rows it lets in."""

    name: str
    condition: str
    """SQL."""
    description: str


@dataclass(frozen=True)
class TableSpec:
    """One Delta table, a folder `<tables.root>/<name>`; `description` says in a sentence what one row is."""

    name: str
    description: str
    columns: tuple[ColumnSpec, ...]
    key: tuple[str, ...]
    partitioned_by: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    owned: bool = True
    """Whether this program alone writes it.

    NOT NULL and CHECK are enforced on owned tables only: an input table may hold bad rows.
    """

    @cached_property
    def schema(self) -> T.StructType:
        """Spark's schema: the columns in their order, required ones not nullable."""
        return T.StructType(
            [T.StructField(column.name, column.type, not column.required) for column in self.columns]
        )

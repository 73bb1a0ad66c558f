"""The reference of all tables, a generated part of `README.md`."""

from __future__ import annotations

from collections.abc import Iterator

from allmrec.tables.schemas import TABLES
from allmrec.tables.specification import ColumnSpec, TableSpec


def reference() -> str:
    """Return a section per table: description, key, partitioning, constraints and columns."""
    return "\n\n".join("\n".join(_section(spec)) for spec in TABLES.values()) + "\n"


def _section(spec: TableSpec) -> Iterator[str]:
    """Yield the lines of one table's section."""
    yield from (f"## `{spec.name}`" + ("" if spec.owned else " (yours)"), "", spec.description, "")
    yield f"- Key: {_names(spec.key)}."
    if spec.partitioned_by:
        yield f"- Partitioned by: {_names(spec.partitioned_by)}."
    if spec.constraints:
        yield "- Constraints:"
        yield from (f"  - {constraint.description}" for constraint in spec.constraints)
    yield from ("", "| column | type | may be missing | what it is |", "|---|---|---|---|")
    yield from map(_line, spec.columns)


def _line(column: ColumnSpec) -> str:
    """Return a column's line of the Markdown table."""
    missing = "" if column.required else "yes"
    return f"| `{column.name}` | `{column.type.simpleString()}` | {missing} | {column.description} |"


def _names(columns: tuple[str, ...]) -> str:
    """Return column names in Markdown, with commas between them."""
    return ", ".join(f"`{column}`" for column in columns)

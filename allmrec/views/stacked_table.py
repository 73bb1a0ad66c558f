"""A table for terminals of any width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

GAP = 2
"""Characters between two columns."""
STYLES = {"failed": "red", "broken": "red", "started": "yellow", "overridden": "yellow"}
"""Words in a cell → its colour; the first word counts."""


@dataclass(frozen=True)
class Column:
    """A column of a table. An expendable one that does not fit is dropped."""

    heading: str
    cells: Sequence[str]
    is_number: bool = False
    wraps: bool = False
    is_expendable: bool = False

    @property
    def width(self) -> int:
        """Number of characters of its longest line."""
        return max(len(line) for cell in (self.heading, *self.cells) for line in cell.split("\n"))

    @property
    def least_width(self) -> int:
        """Number of characters that it needs, wrapped if it wraps."""
        words = [word for cell in (self.heading, *self.cells) for word in cell.split()]
        return max(map(len, words)) if self.wraps else self.width


@dataclass(frozen=True)
class StackedTable:
    """A table that becomes several on a narrow terminal.

    They follow one below the other, without truncated numbers. `key` is the first column of each. The first
    group then has its own table, the others as they fit.
    """

    title: str
    key: Column
    groups: Sequence[Sequence[Column]]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        yield Text(self.title, "italic")
        for columns in self.stacked(options.max_width):
            yield _table([self.key, *columns], options.max_width)
            yield Text()

    def stacked(self, width: int) -> list[list[Column]]:
        """Return the columns of each table, without `key`."""

        def fits(columns: Sequence[Column]) -> bool:
            return _least_width([self.key, *columns]) <= width

        everything = list(chain.from_iterable(self.groups))
        if fits(everything):
            return [everything]
        tables: list[list[Column]] = []
        for group in self.groups:
            columns = _without_expendable(group, fits)
            for piece in [columns] if fits(columns) else [[column] for column in columns]:
                may_join = len(tables) > 1 or len(piece) < len(columns)
                if tables and may_join and fits([*tables[-1], *piece]):
                    tables[-1] += piece
                else:
                    tables.append(piece)
        return tables


def _table(columns: Sequence[Column], width: int) -> Table:
    """Return the table of these columns; wrapping ones share the remaining width."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    spare = max(0, width - _least_width(columns))
    for column in columns:
        given = min(column.width, column.least_width + spare)
        spare -= given - column.least_width
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        table.add_column(column.heading, width=given, no_wrap=not column.wraps, justify=justify)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell, _style(cell)) for cell in cells))
    return table


def _least_width(columns: Sequence[Column]) -> int:
    return sum(column.least_width for column in columns) + GAP * (len(columns) - 1)


def _without_expendable(group: Sequence[Column], fits: Callable[[Sequence[Column]], bool]) -> list[Column]:
    """Return the columns without expendable ones, the last first, until they fit."""
    columns = list(group)
    for column in reversed(group):
        if column.is_expendable and not fits(columns):
            columns.remove(column)
    return columns


def _style(cell: str) -> str:
    return next((style for word, style in STYLES.items() if word in cell), "")

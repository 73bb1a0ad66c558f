"""A table for a terminal of any width: where it does not fit it becomes several, and no number is cut."""

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
"""Colours by the first of these words that a cell has."""


@dataclass(frozen=True)
class Column:
    """A column of a table; of those that do not fit, an expendable one is left out."""

    heading: str
    cells: Sequence[str]
    is_number: bool = False
    wraps: bool = False
    is_expendable: bool = False

    @property
    def width(self) -> int:
        """Characters that it would fill."""
        return max(len(line) for cell in (self.heading, *self.cells) for line in cell.split("\n"))

    @property
    def least_width(self) -> int:
        """Characters that it needs: its longest word where it may wrap."""
        words = [word for cell in (self.heading, *self.cells) for word in cell.split()]
        return max(map(len, words)) if self.wraps else self.width


@dataclass(frozen=True)
class StackedTable:
    """A table that becomes several, one below the other, where a terminal is too narrow: no number is cut.

    `key` is the first column of each; the first group then stands by itself, the others as they fit.
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
    """Return the table of these columns; those that wrap share what the others leave of the width."""
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
    """Return the columns without as many of the expendable ones, the last ones first, as do not fit."""
    columns = list(group)
    for column in reversed(group):
        if column.is_expendable and not fits(columns):
            columns.remove(column)
    return columns


def _style(cell: str) -> str:
    return next((style for word, style in STYLES.items() if word in cell), "")

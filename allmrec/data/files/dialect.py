"""The dialect of a CSV file, by its first lines."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from allmrec.config import CsvConfig
from allmrec.data.files.records import Dialect, Record, records

SEPARATORS = (",", ";", "\t", "|", "\x01")
"""Separators that are tried if no setting names one. Hive writes the last one."""
_NAMES = {"\t": "tab", "\x01": "^A"}
_ESCAPES = {"doubling": (False,), "backslash": (True,), None: (False, True)}
_MAX_LINES = 2000


class CsvForm(NamedTuple):
    """The form of a CSV file."""

    dialect: Dialect
    names: tuple[str, ...]
    """Its columns, by its header or the settings. A column without a name has an empty one."""
    header: tuple[str, ...] | None
    """The header as it is written; None: the file has none."""
    header_line: str
    """The line of the header; empty without one."""
    is_simple: bool
    """Whether every line that was read is simple (`Dialect.is_simple`)."""

    def __str__(self) -> str:
        """Return the form in words."""
        separator = _NAMES.get(self.dialect.separator, self.dialect.separator)
        quote = f"enclosed by {self.dialect.quote}" if self.dialect.quote else "not enclosed"
        backslash = ", quotes escaped by a backslash" if self.dialect.escapes[0] else ""
        header = "with a header" if self.header else "without a header"
        return f"CSV {header}, values separated by {separator} and {quote}{backslash}"


def csv_form(
    text: str, settings: CsvConfig, wanted: Collection[str], names: tuple[str, ...] | None = None
) -> CsvForm:
    """Return the form of a file that begins with `text`.

    `wanted` are the names of wanted columns; `names` the columns of a file without a header.
    """
    lines = [line for line in re.split("\r\n|\n|\r", text)][:_MAX_LINES]
    separators = SEPARATORS if settings.separator is None else (settings.separator,)
    quote = '"' if settings.quote is None else settings.quote
    escapes = _ESCAPES[settings.escape]

    def merit(separator: str) -> tuple[int, bool, float, int]:
        quotes = (quote, "") if settings.quote is None else (quote,)
        tables = [_table(lines, _dialect(separator, one, escapes), names) for one in quotes]
        found = max(tables, key=lambda table: table.share_good)
        num_known = len(set(found.names) & set(wanted)) if names is None else 0
        return num_known, found.share_good >= 0.9 and found.width > 1, found.share_good, found.width

    separator = max(separators, key=merit)
    dialect = _dialect(separator, quote, escapes)
    if settings.quote is None and settings.escape is None and dialect.quote:
        dialect = _quoting(lines, dialect, names)
    if settings.escape is None and dialect.quote and _needs_backslash(lines, dialect, names):
        dialect = dialect._replace(escapes=(True, False))
    table = _table(lines, dialect, names)
    is_simple = all(dialect.is_simple(line) for line in lines)
    return CsvForm(dialect, table.names, table.header, table.header_line, is_simple)


class _Table(NamedTuple):
    """The first lines, read in a dialect."""

    names: tuple[str, ...]
    header: tuple[str, ...] | None
    header_line: str
    width: int
    num_bad: int
    share_good: float


def _dialect(separator: str, quote: str, escapes: tuple[bool, ...]) -> Dialect:
    return Dialect(separator, quote if len(separator) == 1 else "", escapes)


def _table(lines: list[str], dialect: Dialect, names: tuple[str, ...] | None) -> _Table:
    """Read the lines. `names` are the columns if no header is expected (one may exist)."""
    first = _first(lines, dialect, names)
    fields = first.fields or []
    is_header = names is None or tuple(field.strip() for field in fields) == names
    width = len(fields) if names is None else len(names)
    found = list(records(lines, dialect, width))
    num_bad = sum(record.fields is None for record in found)
    return _Table(
        names=tuple(field.strip() for field in fields) if names is None else names,
        header=tuple(fields) if is_header else None,
        header_line=first.text if is_header else "",
        width=width,
        num_bad=num_bad,
        share_good=1 - num_bad / len(found) if found else 0.0,
    )


def _first(lines: list[str], dialect: Dialect, names: tuple[str, ...] | None) -> Record:
    """Return the first record of any width."""
    line = next((line for line in lines if line.strip()), "")
    widths = {line.count(dialect.separator) + 1} if names is None else {len(names)}
    # The width that gives a readable record counts, because quotes may contain separators.
    for width in (*widths, *range(line.count(dialect.separator), 0, -1)):
        record = next(records(lines, dialect, width), Record(None, "", None))
        if record.fields is not None:
            return record
    return Record(line.split(dialect.separator), line, None)


def _quoting(lines: list[str], dialect: Dialect, names: tuple[str, ...] | None) -> Dialect:
    """Return the dialect, without quotes if only that reads the lines.

    A value that is enclosed as a whole, also over several lines, shows that quotes enclose values.
    """
    separator = re.escape(dialect.separator)
    quote = re.escape(dialect.quote)
    enclosed = rf"(?:^|{separator}){quote}[^{quote}]*(?:{quote}{quote}[^{quote}]*)*{quote}(?:{separator}|$)"
    if re.search(enclosed, "\n".join(lines), re.MULTILINE):
        return dialect
    without = dialect._replace(quote="")
    is_better = _table(lines, without, names).num_bad < _table(lines, dialect, names).num_bad
    return without if is_better else dialect


def _needs_backslash(lines: list[str], dialect: Dialect, names: tuple[str, ...] | None) -> bool:
    """Return whether only backslashes as escapes of quotes make the records readable."""
    if not any(f"\\{dialect.quote}" in line for line in lines):
        return False
    doubling = _table(lines, dialect._replace(escapes=(False,)), names)
    return _table(lines, dialect._replace(escapes=(True,)), names).num_bad < doubling.num_bad

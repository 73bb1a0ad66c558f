"""Records of CSV lines, read by Python's `csv`.

A record that does not fit costs only its first line. The next line is read again, so that a quote that is
never closed swallows no further record.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_RECORD = 1 << 22
"""Maximal number of characters of a record. A longer record counts as an open quote."""
_BACKSLASH = "\\"


class Dialect(NamedTuple):
    """How the values of a record are written."""

    separator: str = ","
    """One character if values may be enclosed, else any text."""
    quote: str = '"'
    """The character that encloses values; empty: values are never enclosed."""
    escapes: tuple[bool, ...] = (False, True)
    """Whether a backslash escapes a quote, beside the doubled quote, as alternatives in order."""

    def is_simple(self, line: str) -> bool:
        """Return whether every CSV reader reads the line as one record."""
        return re.fullmatch(self.simple_pattern(), line) is not None

    def simple_pattern(self) -> str:
        """Return the regular expression (Python, Java) that matches a whole simple line.

        Its values have no quote and, unless they are enclosed, no separator.
        """
        separator = re.escape(self.separator)
        quote = re.escape(self.quote)
        if not quote:
            return r"[\s\S]*"
        backslash = re.escape(_BACKSLASH) if self.escapes[0] else ""
        value = f"(?:[^{quote}{separator}{backslash}]*|{quote}[^{quote}{backslash}]*{quote})"
        return f"{value}(?:{separator}{value})*"


class Record(NamedTuple):
    """One record."""

    fields: list[str] | None
    """Its values; None if it cannot be read."""
    text: str
    """Its lines."""
    problem: str | None
    """Its fault: not_csv, not_utf8, nul_character."""


class _Lines:
    """Lines that can be read again."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line

    def forget(self) -> None:
        """Discard the lines read so far."""
        self.taken.clear()

    def back_to(self, number: int) -> None:
        """Push back the lines read so far, except the first `number`."""
        self._again.extendleft(reversed(self.taken[number:]))
        self.taken.clear()

    def record(self) -> Iterator[str]:
        """Yield lines with ends, up to the maximal record length."""
        size = 0
        for line in self:
            size += len(line) + 1
            if size > MAX_RECORD:
                return
            yield line + "\n"


def records(lines: Iterable[str], dialect: Dialect, width: int) -> Iterator[Record]:
    """Yield the records of a file's lines, or their problems.

    A readable record has `width` values. Blank lines are skipped. Bytes that are no UTF-8 are expected as
    lone surrogates (`errors="surrogateescape"`).
    """
    csv.field_size_limit(MAX_RECORD)
    source = _Lines(lines)
    for line in source:
        if not line.strip():
            source.forget()
            continue
        if "\0" in line:
            record = Record(None, line, "nul_character")
        elif dialect.quote not in line or not dialect.quote:
            record = _of_fields(line.split(dialect.separator), line, width)
        else:
            source.back_to(0)
            record = _quoted(source, dialect, width)
        source.forget()
        yield _checked(record)


def _of_fields(fields: list[str], text: str, width: int) -> Record:
    if len(fields) != width:
        return Record(None, text, "not_csv")
    return Record(fields, text, None)


def _checked(record: Record) -> Record:
    """Return the record; without values if it is no UTF-8."""
    if record.text.isascii():
        return record
    try:
        record.text.encode()
    except UnicodeEncodeError:
        text = record.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return Record(None, text, "not_utf8")
    return record


def _quoted(source: _Lines, dialect: Dialect, width: int) -> Record:
    """Return the next record of lines with quotes."""
    whole: Record | None = None
    for backslash in dialect.escapes:
        fields = _fields(source, dialect, backslash)
        text = "\n".join(source.taken)
        if fields is not None and len(fields) == width:
            return Record(fields, text, None)
        if fields is not None and whole is None:
            whole = Record(None, text, "not_csv")
        source.back_to(0)
    line = next(source)
    if whole is not None:
        # A well-formed record of another width is one record, also over several lines.
        for _ in range(whole.text.count("\n")):
            next(source)
        return whole
    parts = [_part(part, dialect.quote) for part in line.split(dialect.separator)]
    if len(parts) != width or None in parts:
        return Record(None, line, "not_csv")
    return Record([part for part in parts if part is not None], line, None)


def _fields(source: _Lines, dialect: Dialect, backslash: bool) -> list[str] | None:
    """Return the next record's values, or None for wrong quotes."""
    reader = csv.reader(
        source.record(),
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        escapechar=_BACKSLASH if backslash else None,
        strict=True,
    )
    try:
        return next(reader, None)
    except csv.Error:
        return None


def _part(part: str, quote: str) -> str | None:
    """Return a part of a line with stray quotes as a value. Paired quotes belong to it.

    An example is `"Weird Al" Yankovic`. Returns None for an unpaired quote.
    """
    if not part.startswith(quote):
        return part
    if part.count(quote) % 2:
        return None
    return part[1:-1] if part.endswith(quote) and part.count(quote) == 2 else part

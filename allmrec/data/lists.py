"""Lists written as texts: JSON, Python literals, NumPy's print."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_STRING = r"(?:'[^']*'|\"[^\"]*\")"
_NUMPY = re.compile(rf"\[\s*{_STRING}(?:\s+{_STRING})+\s*\]")
"""NumPy prints no commas. Python would read one long text."""


class Listed(NamedTuple):
    """A text, read as a list."""

    texts: list[str] | None
    """The elements of a list; None if the text is no list."""
    is_wrong: bool
    """Whether the text is an object, or a list of other elements than texts and numbers."""


PLAIN = Listed(None, False)
"""The result for a text that is no list."""
_WRONG = Listed(None, True)


def listed(text: str) -> Listed:
    """Return a list's elements, or a list of lists' first path.

    The `name` of an object in a list counts, as TMDB and Goodreads write genres. No code in the text is run.
    """
    text = text.strip()
    if text[:1] not in ("[", "{"):
        return PLAIN
    if _NUMPY.fullmatch(text):
        return Listed([part[1:-1] for part in re.findall(_STRING, text)], False)
    value = parsed(text)
    if isinstance(value, dict):
        return _WRONG
    return of_values(value) if isinstance(value, list | tuple) else PLAIN


def of_values(values: Iterable[Any]) -> Listed:
    """Return a list's elements, or its first path, as texts."""
    values = [value for value in values if value is not None]
    if values and isinstance(values[0], list | tuple):
        return of_values(values[0])
    texts = []
    for value in values:
        named = value.get("name") if isinstance(value, dict) else value
        if isinstance(named, bool) or not isinstance(named, str | int | float):
            return _WRONG
        texts.append(named if isinstance(named, str) else number_text(named))
    return Listed(texts, False)


def number_text(value: float) -> str:
    """Return a number as a text, whole numbers without a point."""
    return str(int(value)) if value == value and abs(value) < 2**53 and value == int(value) else str(value)


def parsed(text: str) -> Any:
    """Return the value of JSON or of a Python literal, or None.

    No code in the text is run (`ast.literal_eval`).
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return literal(text)


def literal(text: str) -> Any:
    """Return the value of a Python literal, or None."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None

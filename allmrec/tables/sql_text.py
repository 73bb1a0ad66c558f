"""Paths in SQL: whatever characters they have, they end neither a name nor a text."""

from __future__ import annotations


def delta_at(path: str) -> str:
    """Return the name that SQL has for the Delta table at a path."""
    return f"delta.`{path.replace('`', '``')}`"


def quoted(text: str) -> str:
    """Return a text as SQL writes it, in quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

"""Names and texts in SQL, escaped."""

from __future__ import annotations


def delta_at(path: str) -> str:
    """Return the SQL name of the Delta table at a path."""
    return f"delta.`{path.replace('`', '``')}`"


def quoted(text: str) -> str:
    """Return a text as a quoted SQL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

"""Values of `spark.settings` stay out of printed and stored lines.

They may be passwords.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

MIN_CHARACTERS = 6
"""Shorter values are common words and numbers, not secrets."""
MIN_CHARACTERS_OF_PART = 8
"""The same for a part of a value."""
_hidden: set[str] = set()


def keep_secret(values: Iterable[str]) -> None:
    """Hide these values, and their parts between blanks, `=`, `,` and `;`.

    Paths of existing files and folders stay visible, so that errors can name them.
    """
    for value in values:
        parts = [part for part in re.split(r"[\s=,;]+", value) if len(part) >= MIN_CHARACTERS_OF_PART]
        whole = [value] if len(value) >= MIN_CHARACTERS else []
        _hidden.update(text for text in (*parts, *whole) if not os.path.exists(text))


def without_secrets(text: str) -> str:
    """Return a text with every hidden value replaced by `***`."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, "***")
    return text

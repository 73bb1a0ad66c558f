"""Values of `spark.settings` may be passwords, so that no line that is printed or stored contains one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

MIN_CHARACTERS = 6
"""Shorter values are words and numbers of many lines, and no secrets."""
MIN_CHARACTERS_OF_PART = 8
"""The same for a part of a value."""
_hidden: set[str] = set()


def keep_secret(values: Iterable[str]) -> None:
    """Hide these values, and the parts of them between blanks, `=`, `,` and `;`, from now on.

    A file or folder of this machine is no secret: an error that names one must be readable.
    """
    for value in values:
        parts = [part for part in re.split(r"[\s=,;]+", value) if len(part) >= MIN_CHARACTERS_OF_PART]
        whole = [value] if len(value) >= MIN_CHARACTERS else []
        _hidden.update(text for text in (*parts, *whole) if not os.path.exists(text))


def without_secrets(text: str) -> str:
    """Return a text with `***` in the place of every hidden value."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, "***")
    return text

"""Mistakes in a configuration, in words: path down to the element, value found, value expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from allmrec.config.reference import WORDS, expected, fields, keys_of

MAX_VALUE_CHARACTERS = 200
"""How much of a wrong value an error quotes."""
_SECRET = ("spark", "settings")
"""Where passwords and keys may be: an error names the key and the type of the value alone."""
_TYPE_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}

Place = Sequence[str | int]
"""Keys and indices that lead from the root to a value."""


def explained(error: ValidationError) -> str:
    """Return pydantic's mistakes in one line, one for each path."""
    by_path: dict[str, str] = {}
    for detail in error.errors():
        path, explanation = _explained(dict(detail))
        by_path.setdefault(path, explanation)
    return "; ".join(by_path.values())


def path_of(place: Place) -> str:
    """Return a place as people write it: `sequences.event_types[1]`."""
    path = ""
    for part in place:
        name = part or '""'
        path += f"[{part}]" if isinstance(part, int) else f".{name}" if path else f"{name}"
    return path


def _explained(detail: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path of one of pydantic's mistakes and its account as `path: value, expected …`."""
    place = detail["loc"]
    path = path_of(place) or "configuration"
    if detail["type"] == "extra_forbidden":
        return path, f"{path}: unknown key, expected one of {', '.join(_keys_beside(place))}"
    if detail["type"] == "value_error":
        return path, str(detail["ctx"]["error"])
    if detail["type"] == "json_invalid":
        # The input of this mistake is the whole configuration.
        return path, f"{path}: cannot be read: {detail['ctx']['error']}"
    found = "missing" if detail["type"] == "missing" else _shown(place, detail["input"])
    wanted = expected(place) or "a mapping of settings"
    advice = ""
    if detail["type"] == "string_too_short":
        wanted = "a text that is not empty"
    elif detail["input"] is None and "a text" in wanted:
        advice = "; put it into quotes if that is the text"
    return path, f"{path}: {found}, expected {wanted}{advice}"


def _shown(place: Place, value: Any) -> str:
    """Return a wrong value as JSON, shortened; of one that may be secret its type alone."""
    if tuple(place[:2]) == _SECRET or tuple(place) == _SECRET[:1]:
        return WORDS[_TYPE_NAMES.get(type(value), "null")]
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}…"


def _keys_beside(place: Place) -> list[str]:
    """Return the known keys of the section in which a key is unknown."""
    in_list = keys_of(place[:-1])
    if in_list:
        return in_list
    section = "".join(f"{part}." for part in place[:-1])
    names = (name.removeprefix(section) for name, _ in fields() if name.startswith(section))
    return sorted({name.split(".")[0] for name in names})

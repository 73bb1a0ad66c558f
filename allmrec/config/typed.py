"""The plain scalars of a YAML tree get the types of their settings: text, number, true or false, or null."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from allmrec.config.sections.root import Config
from allmrec.config.yaml_text import Plain
from allmrec.errors import ConfigError

NULLS = ("", "~", "null", "Null", "NULL")
_WORDS = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")


def typed(value: Any, kind: Any, path: str = "") -> Any:
    """Return a value of a YAML tree with its plain scalars read as the type `kind`.

    Where `kind` takes texts, a scalar is the text that was written, or null. Elsewhere it is read by the core
    schema of YAML 1.2, and stays a text if it is neither number nor word of that schema. Raises ConfigError,
    with the path, for a text that YAML cut off at a `#`.
    """
    kinds = list(_alternatives(kind))
    if isinstance(value, Plain):
        if not takes_text(kind):
            return _by_core_schema(value)
        if value.is_cut:
            raise ConfigError(
                f"{path}: the text is cut at a #, which begins a comment in YAML; put the whole text into "
                "quotes, or a blank behind the #"
            )
        return None if value in NULLS else str(value)
    if isinstance(value, dict):
        return {name: typed(part, *_below(kinds, name, path)) for name, part in value.items()}
    if isinstance(value, list):
        elements = next((get_args(one) for one in kinds if get_origin(one) is tuple), ())
        return [
            typed(part, _element(elements, index), f"{path}[{index}]") for index, part in enumerate(value)
        ]
    return value


def takes_text(kind: Any) -> bool:
    """Return whether a type takes texts: `str`, or a choice of words."""
    kinds = list(_alternatives(kind))
    return str in kinds or any(get_origin(one) is Literal for one in kinds)


def is_scalar(kind: Any) -> bool:
    """Return whether a type takes neither lists nor mappings nor sections."""
    return all(one in (str, int, float, bool) or get_origin(one) is Literal for one in _alternatives(kind))


def setting_at(path: str) -> tuple[list[str], Any]:
    """Return the keys that lead to `section.key`, and the type of that setting; Any for an unknown one.

    All that follows a setting that is a mapping is one key of it, such as `spark.settings.spark.ui.port`.
    """
    parts = path.split(".")
    kind: Any = Config
    for number, part in enumerate(parts):
        if not _is_section(kind):
            values = next((get_args(one)[1] for one in _alternatives(kind) if get_origin(one) is dict), Any)
            return [*parts[:number], ".".join(parts[number:])] if values is not Any else parts, values
        field = kind.model_fields.get(part)
        if field is None:
            return parts, Any
        kind = field.annotation
    return parts, kind


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types of a union without null, and what `Annotated` annotates."""
    if get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _alternatives(one)
    elif kind is not NoneType:
        yield kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _below(kinds: list[Any], name: str, path: str) -> tuple[Any, str]:
    """Return type and path of what the key `name` of a mapping holds."""
    below = f"{path}.{name}" if path else name
    for kind in kinds:
        if get_origin(kind) is dict:
            return get_args(kind)[1], below
        if _is_section(kind) and name in kind.model_fields:
            return kind.model_fields[name].annotation, below
    return Any, below


def _element(kinds: tuple[Any, ...], index: int) -> Any:
    """Return the type of a tuple's element: of any length, or of one type for each place."""
    if kinds[1:] == (...,):
        return kinds[0]
    return kinds[index] if index < len(kinds) else Any


def _by_core_schema(text: str) -> Any:
    """Return null, true, false or the number that a scalar is; the text itself if it is none of them."""
    if text in _WORDS:
        return _WORDS[text]
    digits = text.replace("_", "")
    try:
        if _INTEGER.fullmatch(text):
            return int(digits, 0 if digits[:2] in ("0x", "0o") else 10)
        if _NUMBER.fullmatch(text):
            return float(digits)
    except ValueError:  # Python refuses integers of thousands of digits
        return str(text)
    return str(text)

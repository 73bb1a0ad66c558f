"""YAML as it was written: every plain scalar stays a text, and the type of its setting gives it a meaning.

YAML 1.1 reads `10:30` as 630, `no` as false, `0123` as an octal number and ` #` as the start of a comment. Of
two equal keys it keeps the last. Here the reader gives no scalar a type. It refuses repeated keys, anchors,
aliases, tags and second documents by their line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from allmrec.errors import ConfigError

MAX_DEPTH = 20
"""How deep mappings and lists may be nested. The settings need six levels."""
_GLUED_COMMENT = re.compile(r"[ \t]+#[^\s#]")
"""A `#` after a blank and before a word, such as ` #2`: a comment for YAML, often a part of the text."""
_TAG_HANDLE = re.compile(r" '!.*'$")


class Plain(str):
    """A scalar without quotes, as it was written. Its setting says whether that is a text or a number."""

    is_cut: bool = False
    """Whether a comment follows that looks like a part of the text, such as ` #2`."""


def parsed(text: str, where: str) -> Any:
    """Return the document of a YAML text: dicts, lists, `Plain` scalars and quoted texts.

    An empty text is an empty `Plain`. Raises ConfigError, in one line that begins with `where`, if the text
    is no YAML or holds more than plain settings.
    """
    try:
        events = [event for event in yaml.parse(text, yaml.SafeLoader) if not _is_frame(event)]
    except yaml.reader.ReaderError as error:
        problem = f"character {error.position + 1}: {error.reason}"
        raise ConfigError(f"{where}: not valid YAML ({problem})") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({_problem(error)})") from None
    return _Document(events, text, where).value()


def comment(text: str) -> str:
    """Return the first comment of a YAML text that `parsed` reads; nothing if there is none."""
    scalars = [event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, ScalarEvent)]
    insides = [range(_start(scalar), _end(scalar)) for scalar in scalars]
    signs = (found.start() for found in re.finditer("#", text))
    first = next((sign for sign in signs if not any(sign in inside for inside in insides)), None)
    return "" if first is None else text[first:].splitlines()[0]


def unquoted(text: str) -> str | None:
    """Return the text inside the quotes if all of `text` is one quoted YAML scalar, else None."""
    if text[:1] not in ("'", '"'):
        return None
    try:
        scalars = [event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, ScalarEvent)]
    except yaml.YAMLError:
        return None
    is_whole = len(scalars) == 1 and _end(scalars[0]) == len(text)
    return str(scalars[0].value) if is_whole else None


def _start(event: yaml.Event) -> int:
    """Return the index of the first character of an event."""
    assert event.start_mark is not None
    return event.start_mark.index


def _end(event: yaml.Event) -> int:
    """Return the index of the character behind an event."""
    assert event.end_mark is not None
    return event.end_mark.index


def _line(event: yaml.Event) -> int:
    """Return the line on which an event begins, from 1 on."""
    assert event.start_mark is not None
    return event.start_mark.line + 1


def _is_frame(event: yaml.Event) -> bool:
    """Return whether an event only opens or closes the stream, or closes a document."""
    return isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent)


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return the place and the problem of a syntax error, without the text around it, which may be secret."""
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + _TAG_HANDLE.sub("", error.problem or error.context or "unreadable")


class _Document:
    """Builds the value of a document from YAML's events."""

    def __init__(self, events: list[yaml.Event], text: str, where: str) -> None:
        self._events: Iterator[yaml.Event] = iter(events)
        self._text = text
        self._where = where

    def value(self) -> Any:
        """Return the value of the only document; an empty `Plain` if there is none."""
        if next(self._events, None) is None:
            return Plain()
        value = self._value(next(self._events), 0)
        second = next(self._events, None)
        if isinstance(second, DocumentStartEvent):
            self._refuse(second, "a second document begins (---), expected one")
        return value

    def _value(self, event: yaml.Event, depth: int) -> Any:
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse(event, "an anchor (&) or alias (*); write the value in each place, or quote it")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "a tag (!); put the value into quotes if it is a text")
        if isinstance(event, CollectionStartEvent) and depth == MAX_DEPTH:
            self._refuse(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, MappingStartEvent):
            return self._mapping(depth + 1)
        if isinstance(event, SequenceStartEvent):
            return list(self._list(depth + 1))
        assert isinstance(event, ScalarEvent)
        return self._scalar(event)

    def _list(self, depth: int) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                return
            yield self._value(event, depth)

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._value(event, depth)
            if not isinstance(key, str):
                self._refuse(event, "a mapping or list as a key, expected the name of a setting")
            if key == "<<" and isinstance(key, Plain):
                self._refuse(event, "a merge key (<<); write the settings in each place")
            if key in values:
                self._refuse(event, f"the key {key} is there twice, first in line {lines[key]}; remove one")
            lines[str(key)] = _line(event)
            values[str(key)] = self._value(next(self._events), depth)
        return values

    def _scalar(self, event: ScalarEvent) -> str:
        if event.style is not None:
            return str(event.value)
        scalar = Plain(event.value)
        scalar.is_cut = _GLUED_COMMENT.match(self._text, _end(event)) is not None
        return scalar

    def _refuse(self, event: yaml.Event, problem: str) -> NoReturn:
        raise ConfigError(f"{self._where}: line {_line(event)}: {problem}")

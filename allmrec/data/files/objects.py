"""JSON objects, one a line or in a document, and Python's literals of dicts, as texts of the fields wanted.

A document is an array of objects, or objects written over several lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from allmrec.data.lists import literal, number_text
from allmrec.errors import InputError

MAX_OBJECT = 1 << 26
"""Maximum number of characters of an object in a document."""
LONGEST_NUMBER = 40
"""Digits up to which a whole number is written out."""
_LINE_SHOWN = 200


class Number(str):
    """A number as it stands in JSON: also one that no float holds."""


class Wanted(NamedTuple):
    """A value that is asked of every object."""

    field: str
    """Our column."""
    name: str
    """The key that may hold it."""
    rule: str
    """How the column is read (`allmrec.data.values`); it decides which shapes a value may have."""


class Parsed(NamedTuple):
    """One object."""

    values: list[str | None]
    """One text for each of the wanted values."""
    raw: str
    """The object as JSON; of a line that is none a JSON object with the line."""
    problem: str | None
    """Why it cannot be read: not_json, not_utf8, or unparsable_ and the field of a value of a wrong shape."""


_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


def of_line(line: bytes, wanted: tuple[Wanted, ...]) -> Parsed | None:
    """Return the object of a line; None where the line is blank."""
    try:
        text = line.decode().lstrip("\ufeff")
    except UnicodeDecodeError:
        return _rejected(line.decode("utf-8", "replace"), "not_utf8", wanted)
    if not text.strip():
        return None
    value, is_json = decoded(text)
    if not isinstance(value, dict):
        return _rejected(text, "not_json", wanted)
    return of_object(value, text if is_json else json.dumps(value, default=str), wanted)


def decoded(text: str) -> tuple[Any, bool]:
    """Return (value, True) of a text that is JSON, (value, False) of a Python literal, else (None, False)."""
    try:
        return _DECODER.decode(text.strip()), True
    except (ValueError, RecursionError):
        return literal(text.strip()), False


def of_document(chunks: Iterable[bytes], wanted: tuple[Wanted, ...], name: str) -> Iterator[Parsed]:
    """Yield the objects of a document; `chunks` are its parts between closing braces, which they lack.

    Whether the last brace is there, the chunks do not tell: whoever reads the file looks at its end. Raises
    InputError, by the document's name, where it is broken: what follows cannot be read.
    """
    text = ""
    number = 0
    for chunk in chunks:
        try:
            text += chunk.decode()
        except UnicodeDecodeError as error:
            raise _broken(name, number, "bytes that are no UTF-8", str(error)) from None
        text = _after_separators(text)
        if text and not text.startswith("{"):
            raise _broken(name, number, "no object", text)
        text += "}"
        value, end = _object(text)
        if value is None:
            if len(text) > MAX_OBJECT:
                raise _broken(name, number, f"no end within {MAX_OBJECT:,} characters", text)
            continue
        number += 1
        yield of_object(value, text[:end], wanted)
        text = text[end:]
    if _after_separators(text.removesuffix("}")):
        raise _broken(name, number, "an object that does not end", text)


def _after_separators(text: str) -> str:
    """Return the text from the next object on."""
    return text.lstrip("\ufeff \t\r\n,[]\x1e")


def _object(text: str) -> tuple[dict[str, Any] | None, int]:
    """Return the object at the beginning of a text and its end; None where it is not complete."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, 0
    return value, end


def _broken(name: str, number: int, found: str, text: str) -> InputError:
    shown = " ".join(text[:_LINE_SHOWN].split())
    return InputError(
        f"{name}: broken JSON after object {number:,}: {found} ({shown}), expected objects to the end; "
        "mend the file, nothing was imported"
    )


def of_object(value: dict[str, Any], raw: str, wanted: tuple[Wanted, ...]) -> Parsed:
    """Return the wanted values of an object."""
    values: list[str | None] = []
    problem = None
    for field, name, rule in wanted:
        text, is_wrong = text_of(value.get(name), rule)
        values.append(text)
        if is_wrong and problem is None:
            problem = "unparsable_time" if field == "event_time" else f"unparsable_{field}"
    try:
        raw.encode()
        "".join(text for text in values if text).encode()
    except UnicodeEncodeError:
        return _rejected(raw.encode("utf-8", "replace").decode(), "not_utf8", wanted)
    return Parsed(values, raw, problem)


def text_of(value: Any, rule: str) -> tuple[str | None, bool]:
    """Return (text, False), or (None, True) where a value has no shape that the rule reads.

    Lists stay JSON, which `allmrec.data.values` reads; a whole number is written without a point.
    """
    if value is None:
        return None, False
    if isinstance(value, Number):
        return _number(value), False
    if isinstance(value, str):
        return value, False
    if isinstance(value, bool):
        return (str(value).lower(), False) if rule == "flag" else (None, True)
    if isinstance(value, int | float):
        return number_text(value), False
    if isinstance(value, list | tuple) and rule in ("prose", "path"):
        values = [_number(one) if isinstance(one, Number) else one for one in value]
        return json.dumps(values, ensure_ascii=False, default=str), False
    return None, True


def _number(value: Number) -> str:
    """Return a number of JSON as its digits where it is whole, else as it stands."""
    if value.isdigit():
        return str(value)
    try:
        number = Decimal(value)
    except InvalidOperation:
        return str(value)
    is_whole = number.is_finite() and abs(number.adjusted()) < LONGEST_NUMBER and number == int(number)
    return str(int(number)) if is_whole else str(value)


def _rejected(text: str, problem: str, wanted: tuple[Wanted, ...]) -> Parsed:
    """Return a line that is no object."""
    return Parsed([None] * len(wanted), json.dumps({"line": text}, ensure_ascii=False), problem)

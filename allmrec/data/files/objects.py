"""Wanted fields, as texts, of JSON objects and Python's dict literals.

Objects are one a line or in a document: an array of objects, or objects over several lines.
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
"""Maximal number of digits of a whole number that is written without an exponent."""
_LINE_SHOWN = 200


class Number(str):
    """A number as it is written in JSON, of any precision."""


class Wanted(NamedTuple):
    """A value that is looked up in every object."""

    field: str
    """The table's column."""
    name: str
    """The key in the object."""
    rule: str
    """The rule of the column (`allmrec.data.values`), which decides the allowed types of a value."""


class Parsed(NamedTuple):
    """One object."""

    values: list[str | None]
    """A text for each wanted value."""
    raw: str
    """The object as JSON. For an unreadable line a JSON object with the line."""
    problem: str | None
    """Its fault: not_json, not_utf8, or unparsable_ and the field of a value of a wrong type."""


_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


def of_line(line: bytes, wanted: tuple[Wanted, ...]) -> Parsed | None:
    """Return the object of a line, or None for a blank line."""
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
    """Return (value, whether it is JSON) of JSON or a Python literal.

    Other texts give (None, False).
    """
    try:
        return _DECODER.decode(text.strip()), True
    except (ValueError, RecursionError):
        return literal(text.strip()), False


def of_document(chunks: Iterable[bytes], wanted: tuple[Wanted, ...], name: str) -> Iterator[Parsed]:
    """Yield the objects of a document, whose `chunks` end before closing braces.

    The reader of the file checks that the last brace exists, which the chunks do not show. Raises InputError,
    with the document's name, where it is broken, because the rest is unreadable.
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
    """Return a text's first object and its end, or (None, 0)."""
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
    """Return (text, False), or (None, True) for an unreadable value.

    Lists stay JSON, which `allmrec.data.values` reads. Whole numbers are written without a point.
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
    """Return a number of JSON, whole numbers as their digits."""
    if value.isdigit():
        return str(value)
    try:
        number = Decimal(value)
    except InvalidOperation:
        return str(value)
    is_whole = number.is_finite() and abs(number.adjusted()) < LONGEST_NUMBER and number == int(number)
    return str(int(number)) if is_whole else str(value)


def _rejected(text: str, problem: str, wanted: tuple[Wanted, ...]) -> Parsed:
    """Return the result for a line without an object."""
    return Parsed([None] * len(wanted), json.dumps({"line": text}, ensure_ascii=False), problem)

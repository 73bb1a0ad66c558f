"""The rule that reads each column of the tables, also in words."""

from __future__ import annotations

RULES = {
    "user_id": "id",
    "item_id": "id",
    "event_time": "time",
    "rating": "number",
    "event_type": "text",
    "title": "text",
    "description": "prose",
    "categories": "path",
    "available": "flag",
    "updated_at": "time",
}
"""Column → rule."""
EXPECTED = {
    "id": "a string, an integer, a decimal, a double without a fraction, or bytes that are UTF-8",
    "text": "a string, an integer, a decimal, a double without a fraction, or bytes that are UTF-8",
    "time": "a timestamp, a date, a string, or a number of Unix seconds or milliseconds",
    "number": "a number or a string",
    "flag": "a boolean, a number (0 is false) or a string",
    "prose": "a string, or an array of strings",
    "path": "an array of strings, an array of such arrays, an array of structs with a name, or a string",
}
"""Rule → the types that it reads, in words."""
_NOTES = {
    "id": (
        "Texts are kept, blanks included. A whole number is its digits, also written as a text: "
        "10.0, 10.00, 1.0E1 and 10 are one id. A number with lost digits (1.23457E+17, a double above 2⁵³) "
        "is rejected"
    ),
    "text": "A whole number is its digits",
    "time": (
        "UTC without a zone; a date is its midnight. Numbers are Unix seconds or milliseconds from "
        "1980 to 2286; 20260501, a year or a number of days is rejected. `time_format` sets another format "
        "or unit"
    ),
    "number": "NaN is a number outside of every range",
    "flag": (
        "True: true, t, yes, y and numbers above 0. False: false, f, no, n and 0. A missing value is "
        "true, another word is rejected"
    ),
    "prose": "Lists become one text, also lists written as a text",
    "path": (
        "From root to leaf. A text is split at `category_separator`. Lists written as a text are lists: "
        "JSON, Python's and NumPy's. The `name` of an object counts"
    ),
}
"""Rule → notes for jobs/README.md."""
TYPES = {
    "id": "string",
    "text": "string",
    "time": "timestamp",
    "number": "double",
    "flag": "boolean",
    "prose": "string",
    "path": "array<string>",
}
"""Rule → the resulting type."""


def reference() -> str:
    """Return the rules as a Markdown table, for jobs/README.md."""
    rows = ["| our columns | are read from | how |", "|---|---|---|"]
    for rule, kinds in EXPECTED.items():
        names = ", ".join(f"`{name}`" for name, own in RULES.items() if own == rule)
        rows.append(f"| {names} | {kinds} | {_NOTES[rule]} |")
    return "\n".join(rows) + "\n"


def reason_of(field: str) -> str:
    """Return the reason of an unreadable value in a column."""
    return "unparsable_time" if field in ("event_time", "position") else f"unparsable_{field}"

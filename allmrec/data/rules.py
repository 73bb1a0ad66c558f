"""By which rule each of our columns is read, and in words what a rule reads."""

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
"""Which rule each of our columns follows."""
EXPECTED = {
    "id": "a string, an integer, a decimal, a double without a fraction, or bytes that are UTF-8",
    "text": "a string, an integer, a decimal, a double without a fraction, or bytes that are UTF-8",
    "time": "a timestamp, a date, a string, or a number of Unix seconds or milliseconds",
    "number": "a number or a string",
    "flag": "a boolean, a number (0 is false) or a string",
    "prose": "a string, or an array of strings",
    "path": "an array of strings, an array of such arrays, an array of structs with a name, or a string",
}
"""What each rule reads, in words."""
_NOTES = {
    "id": (
        "Texts stay as they are, blanks included. A whole number is its digits, also where it is a text: "
        "10.0, 10.00, 1.0E1 and 10 are one id. Where digits are lost (1.23457E+17, a double above 2⁵³) "
        "the row is rejected"
    ),
    "text": "A whole number is its digits",
    "time": (
        "Without a zone it is UTC, a date is its midnight. A number is Unix seconds or milliseconds from "
        "1980 to 2286; 20260501, a year or a number of days is none. `time_format` says another format or "
        "unit"
    ),
    "number": "NaN is a number outside of every range",
    "flag": (
        "True are true, t, yes, y and numbers above 0; false are false, f, no, n and 0. A missing one is "
        "true, another word is rejected"
    ),
    "prose": "Lists become one text, also lists written as a text",
    "path": (
        "From root to leaf. A text is split at `category_separator`. Lists written as a text are lists: "
        "JSON, Python's and NumPy's. Of objects their `name` counts"
    ),
}
"""What else there is to say of each rule, for jobs/README.md."""
TYPES = {
    "id": "string",
    "text": "string",
    "time": "timestamp",
    "number": "double",
    "flag": "boolean",
    "prose": "string",
    "path": "array<string>",
}
"""What each rule makes of a value."""


def reference() -> str:
    """Return the rules as a Markdown table, for jobs/README.md."""
    rows = ["| our columns | are read from | how |", "|---|---|---|"]
    for rule, kinds in EXPECTED.items():
        names = ", ".join(f"`{name}`" for name, own in RULES.items() if own == rule)
        rows.append(f"| {names} | {kinds} | {_NOTES[rule]} |")
    return "\n".join(rows) + "\n"


def reason_of(field: str) -> str:
    """Return the reason of a row whose value for one of our columns cannot be read."""
    return "unparsable_time" if field in ("event_time", "position") else f"unparsable_{field}"

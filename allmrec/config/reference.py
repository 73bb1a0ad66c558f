"""What every key of the configuration is and allows, in words: for conf/README.md and for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from allmrec.config.sections import Config

WORDS = {
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
}
"""JSON Schema's types in plain English."""


def reference() -> str:
    """Return the configuration reference: a Markdown table, one row per field, in the order of the code."""
    rows = ["| key | default | allowed | what it is |", "|---|---|---|---|"]
    for path, field in fields():
        default = json.dumps(field.get_default(), default=list)
        description = (field.description or "").replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{path}` | `{default}` | {expected(path)} | {description} |")
    return "\n".join(rows) + "\n"


def fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the path (`section.key`) and the field of every setting of a section, in order."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def expected(path: str) -> str:
    """Return in words what a field allows, from the JSON schema of its type; nothing for an unknown path."""
    field = dict(fields()).get(path)
    if field is None:
        return ""
    type_of_field: Any = Annotated[field.annotation, field]
    return _allowed(TypeAdapter(type_of_field).json_schema())


def _allowed(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(schema.get("enum", [schema.get("const")]))
    words = WORDS.get(schema.get("type", ""), "a value")
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if low is not None and high is not None:
        return f"{words} from {low:g} to {high:g}"
    if low is not None:
        return f"{words} ≥ {low:g}"
    if above is not None:
        return f"{words} > {above:g}"
    if "enum" in schema.get("items", {}):
        return f"{words} of one or more of {', '.join(schema['items']['enum'])}"
    return words

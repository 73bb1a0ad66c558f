"""What every key of the configuration is and allows, in words: for conf/README.md and for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from allmrec.config.sections.root import Config

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
        allowed = expected(path.split("."))
        rows.append(f"| `{path}` | `{default}` | {allowed} | {description} |")
    return "\n".join(rows) + "\n"


def fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the path (`section.key`) and the field of every setting of a section, in order."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def expected(place: Sequence[str | int]) -> str:
    """Return in words what a field, or an element of it, allows; nothing for an unknown place.

    `place` holds the keys and indices that lead there. The words come from the JSON schema of the type.
    """
    known = dict(fields())
    for length in range(1, len(place) + 1):
        field = known.get(".".join(map(str, place[:length])))
        if field is not None:
            type_of_field: Any = Annotated[field.annotation, field]
            return _allowed(_element(TypeAdapter(type_of_field).json_schema(), place[length:]))
    return ""


def _element(schema: Mapping[str, Any], place: Sequence[str | int]) -> Mapping[str, Any]:
    """Return the schema of what is at `place` inside a list or mapping."""
    for part in place:
        options = schema.get("anyOf", [schema])
        schema = next(option for option in options if option["type"] in ("array", "object"))
        if isinstance(part, int):
            schema = schema["prefixItems"][part] if "prefixItems" in schema else schema["items"]
        else:
            schema = schema["additionalProperties"]
    return schema


def _allowed(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(schema.get("enum", [schema.get("const")]))
    words = WORDS.get(schema.get("type", ""), "a value")
    if "examples" in schema:
        return f"{words} such as {schema['examples'][0]}"
    if "prefixItems" in schema:
        return f"{words} of {len(schema['prefixItems'])}: {', '.join(map(_allowed, schema['prefixItems']))}"
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

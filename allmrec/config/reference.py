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
_VALUES = ("time_format", "category_separator", "null_words")
"""The settings of `ValueRules`."""
RARELY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("tables.interactions", "tables.items", "tables.users"), _VALUES),
    "importing": (*_VALUES, "columns", "csv"),
    "candidates": ("text_quota", "rare_below"),
    "text_encoder": ("max_tokens",),
    "cf": (
        *("num_negatives", "item_init", "beta2", "evaluate_every", "sasrec.num_heads", "sasrec.network"),
        *("robust_weight", "gru4rec", "nextitnet", "caser", "mf", "lightgcn", "ncf", "vbpr", "morec"),
    ),
    "stage1": (
        *("networks", "matching", "temperature", "filter_threshold", "optimizer", "positions", "cf_dropout"),
        *("item_reconstruction", "text_reconstruction", "recommendation", "recommendation_score"),
    ),
    "stage2": (
        *("item_input", "user_input", "cf_dropout", "scale_soft_tokens", "warm_start_steps"),
        *("unknown_dropout", "examples", "objective", "num_candidates", "beta2", "clip_norm"),
        *("evaluate_every", "evaluation_users"),
    ),
    "training": ("checkpoint_every", "num_threads", "blend_users", "blend_llm_users"),
    "prompt": ("tokenise", "soft_tokens", "user_token", "item_tokens", "subtract_prior"),
    "scoring": ("match", "repetition_penalty", "soft_items", "num_threads"),
    "evaluation": ("text_share", "num_negatives", "num_sampled_users", "tail_share"),
    "maintenance": ("vacuum_hours",),
}
"""Section → keys that are rarely changed: variants of the method, odd files. A key may be a section."""


def reference() -> str:
    """Return a Markdown table of the settings, one row each, without those that are rarely changed."""
    return _table(rarely=False)


def rare_reference() -> str:
    """Return the same table of the settings that are rarely changed."""
    return _table(rarely=True)


def is_rare(path: str) -> bool:
    """Return whether a setting is one of `RARELY`."""
    names = (f"{section}.{key}" for section, keys in RARELY.items() for key in keys)
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _table(rarely: bool) -> str:
    rows = ["| key | default | allowed | what it is |", "|---|---|---|---|"]
    for path, field in fields():
        if is_rare(path) != rarely:
            continue
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
    found = _schema_at(place)
    return "" if found is None else _allowed(found)


def keys_of(place: Sequence[str | int]) -> list[str]:
    """Return the keys of a section that is an element of a list; none for another place."""
    return sorted((_schema_at(place) or {}).get("properties", {}))


def _schema_at(place: Sequence[str | int]) -> Mapping[str, Any] | None:
    """Return the JSON schema of a field, or of an element of it; None for an unknown place."""
    known = dict(fields())
    for length in range(1, len(place) + 1):
        field = known.get(".".join(map(str, place[:length])))
        if field is not None:
            type_of_field: Any = Annotated[field.annotation, field]
            schema = TypeAdapter(type_of_field).json_schema()
            return _element(schema, place[length:], schema.get("$defs", {}))
    return None


def _element(
    schema: Mapping[str, Any], place: Sequence[str | int], sections: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the schema of what is at `place` inside a list or mapping; `sections` has those named there."""
    for part in place:
        options = schema.get("anyOf", [schema])
        schema = next(option for option in options if option["type"] in ("array", "object"))
        if isinstance(part, int):
            schema = schema["prefixItems"][part] if "prefixItems" in schema else schema["items"]
        elif "properties" in schema:
            schema = schema["properties"].get(part, {})
        else:
            schema = schema["additionalProperties"]
        schema = sections.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    return schema


def _allowed(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(schema.get("enum", [schema.get("const")]))
    if schema.get("format") == "date":
        return "a date such as 2026-06-01"
    words = WORDS.get(schema.get("type", ""), "a value")
    if "examples" in schema:
        return f"{words} such as {schema['examples'][0]}"
    if "prefixItems" in schema:
        return f"{words} of {len(schema['prefixItems'])}: {', '.join(map(_allowed, schema['prefixItems']))}"
    low = schema.get("minimum")
    high = schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    if low is not None and high is not None:
        return f"{words} from {low:g} to {high:g}"
    if low is not None:
        return f"{words} ≥ {low:g}"
    if above is not None:
        return f"{words} > {above:g}"
    if "enum" in schema.get("items", {}):
        return f"{words} of one or more of {', '.join(schema['items']['enum'])}"
    if "minItems" in schema:
        return f"{words} that is not empty"
    return words

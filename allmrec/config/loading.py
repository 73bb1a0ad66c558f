"""From YAML files, overrides and mappings to a checked `Config`; every mistake is named by its path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from allmrec.config.reference import expected, fields
from allmrec.config.sections import Config
from allmrec.errors import ConfigError


def load(paths: Iterable[str | Path] = (), overrides: Iterable[str] = ()) -> Config:
    """Return the defaults, overlaid by each YAML file in turn, then by each `section.key=value`.

    Raises ConfigError where a file is missing or no mapping, a key unknown, or a value bad; the message
    begins with the path.
    """
    tree: dict[str, Any] = {}
    for path in paths:
        _overlay(tree, _read_yaml(Path(path)))
    for override in overrides:
        key, equals_sign, value = override.partition("=")
        if not equals_sign or not key.strip():
            raise ConfigError(f"--set {override}: expected section.key=value")
        branch: Any = _parse_yaml(value, f"--set {key}")
        if isinstance(branch, int | float) and expected(key.strip()).startswith("a text"):
            branch = value  # a bundle_id, say, may look like a number: 1234567890123e45
        for part in reversed(key.strip().split(".")):
            branch = {part: branch}
        _overlay(tree, branch)
    return from_dict(tree)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Return the Config of a nested mapping.

    Raises ConfigError where a key is unknown or a value bad; the message names each by its path.
    """
    try:
        # JSON mode: strict on numbers and texts, yet an array may fill a tuple.
        return Config.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        by_path: dict[str, str] = {}
        for detail in error.errors():
            path, explanation = _explained(dict(detail))
            by_path.setdefault(path, explanation)
        raise ConfigError("; ".join(by_path.values())) from None


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as a number, as people mean it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, expected a YAML configuration")
    tree = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{path}: {type(tree).__name__}, expected a mapping of sections")
    return tree or {}


def _overlay(tree: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Lay `extra` over `tree` in place, mapping by mapping."""
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _overlay(tree[key], value)
        else:
            tree[key] = value


def _explained(detail: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path of one of pydantic's mistakes and its account as `path: value, expected …`."""
    path = ".".join(str(part) for part in detail["loc"] if isinstance(part, str))
    if detail["type"] == "extra_forbidden":
        return path, f"{path}: unknown key, expected one of {', '.join(_keys_beside(path))}"
    if detail["type"] == "value_error":
        return path, str(detail["ctx"]["error"])
    while path and not _is_setting_or_section(path):  # a union's branch or an element adds parts of its own
        path = path.rpartition(".")[0]
    value = json.dumps(detail["input"], ensure_ascii=False)
    return path, f"{path or 'configuration'}: {value}, expected {expected(path) or 'a mapping of settings'}"


def _keys_beside(path: str) -> list[str]:
    """Return the known keys of the section in which `path` is."""
    section = path.rpartition(".")[0]
    names = [name for name, _ in fields() if name.startswith(section)]
    return sorted({name.removeprefix(f"{section}.").split(".")[0] for name in names})


def _is_setting_or_section(path: str) -> bool:
    return any(name == path or name.startswith(path + ".") for name, _ in fields())

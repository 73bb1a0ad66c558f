"""Keys of earlier versions: renamed ones move to their new paths, ones that became constants are dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from allmrec.config.renamed import RENAMED
from allmrec.errors import ConfigError

FIXED: dict[str, int | float] = {
    "candidates.block_items": 8192,
    "candidates.chunk_users": 2048,
    "evaluation.bootstrap_samples": 1000,
    "scoring.chunk_users_without_llm": 4096,
    "stage2.warm_start_batch": 128,
    "stage2.warm_start_learning_rate": 3e-4,
    "text_encoder.batch_size": 64,
    "training.row_group_rows": 20_000,
}
"""Former path of a setting that is a constant now → the constant's value. A constant lies beside its code."""
_MISSING = object()

Say = Callable[[str], None]


def renamed_path(path: str, report: Say) -> str:
    """Return the path of a setting as it is now; a former one is reported."""
    if path not in RENAMED:
        return path
    report(f"{path} is called {RENAMED[path]} now; rename it")
    return RENAMED[path]


def renamed(tree: Mapping[str, Any], report: Say) -> dict[str, Any]:
    """Return a tree of settings with each former key at its new path, and report them.

    Raises ConfigError where both keys have a value, and the values differ.
    """
    found = _copy(tree)
    for old, new in RENAMED.items():
        value = _value_at(found, old)
        section = None if value is _MISSING else _section_of(found, new)
        if section is None:
            continue
        name = new.split(".")[-1]
        if section.setdefault(name, value) != value:
            raise ConfigError(
                f"{old}: {value}, beside {new}: {section[name]}; {old} is the former name of {new}, set "
                f"{new} alone"
            )
        _drop(found, old)
        renamed_path(old, report)
    return found


def without_fixed(tree: Mapping[str, Any], report: Say) -> dict[str, Any]:
    """Return a tree of settings without the keys of `FIXED`, and report them.

    Raises ConfigError where a value differs from the constant.
    """
    found = _copy(tree)
    for path, constant in FIXED.items():
        value = _value_at(found, path)
        if value is _MISSING:
            continue
        if value != constant:
            raise ConfigError(
                f"{path}: {value}, but it is no longer a setting: the value is always {constant}; "
                "remove the line"
            )
        _drop(found, path)
        report(f"{path} is no longer a setting: the value is always {constant}; remove the line")
    return found


def of_stored(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored settings of a bundle with the keys of now, whatever its constants were."""
    found = renamed(tree, lambda line: None)
    for path in FIXED:
        _drop(found, path)
    return found


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a tree; its sections are copies, its values are the same."""
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _value_at(tree: dict[str, Any], path: str) -> Any:
    """Return the value at a path; `_MISSING` where there is none."""
    value: Any = tree
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _section_of(tree: dict[str, Any], path: str) -> dict[str, Any] | None:
    """Return the section of a path, made where it is missing; None where no mapping is in its place."""
    section = tree
    for part in path.split(".")[:-1]:
        below = section.setdefault(part, {})
        if not isinstance(below, dict):
            return None
        section = below
    return section


def _drop(tree: dict[str, Any], path: str) -> None:
    """Remove a path, where it is there."""
    *parents, name = path.split(".")
    section = _value_at(tree, ".".join(parents))
    if isinstance(section, dict):
        section.pop(name, None)

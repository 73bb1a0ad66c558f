"""From YAML files, overrides and mappings to a checked `Config`. Every mistake is named by its path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from allmrec.config.former import Say, of_stored, renamed, renamed_path, without_fixed
from allmrec.config.mistakes import explained
from allmrec.config.sections.root import Config
from allmrec.config.typed import NULLS, is_scalar, setting_at, takes_text, typed
from allmrec.config.yaml_text import Plain, comment, parsed, unquoted
from allmrec.errors import ConfigError

_KEY = re.compile(r"\s*([\w.-]+)")
"""The key of an override. Names of Spark's settings have no other characters."""


def _silent(line: str) -> None:
    """Say nothing."""


def load(paths: Iterable[str | Path] = (), overrides: Iterable[str] = (), report: Say = _silent) -> Config:
    """Return the defaults, overlaid by each YAML file in turn, then by each `section.key=value`.

    Of two values of one key the later one counts. Each key of an earlier version is reported once. Raises
    ConfigError if a file cannot be read or is no mapping, a key is unknown or a value bad; the message begins
    with the path.
    """
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            report(line)

    return from_dict(_tree(paths, overrides, once), once)


def asks_for_json(paths: Iterable[str | Path], overrides: Iterable[str]) -> bool:
    """Return whether these options set `reporting.json_lines`, whatever else is wrong with them."""
    asked = False
    for path in paths:
        try:
            asked = _json_lines_of(_read_file(Path(path)), asked)
        except ConfigError:
            asked = asked or _mentions_json(Path(path))
    for override in overrides:
        with suppress(ConfigError):
            asked = _json_lines_of(_read_override(override), asked)
    return asked


def _json_lines_of(tree: Mapping[str, Any], otherwise: bool) -> bool:
    """Return `reporting.json_lines` of a tree."""
    reporting = tree.get("reporting")
    asked = reporting.get("json_lines") if isinstance(reporting, dict) else None
    return asked if isinstance(asked, bool) else otherwise


def _mentions_json(path: Path) -> bool:
    """Return whether a file that is no valid configuration has a line `json_lines: true`."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^[ {]*(reporting: *{ *)?json_lines: *true\b", text, re.MULTILINE) is not None


def from_dict(tree: Mapping[str, Any], report: Say = _silent) -> Config:
    """Return the Config of a nested mapping; keys of earlier versions are reported.

    Raises ConfigError if a key is unknown or a value bad, or if a setting of another backbone than `cf.model`
    has another value than its default; the message names each by its path.
    """
    config = _checked(without_fixed(renamed(tree, report), report))
    _refuse_settings_of_other_backbones(config)
    return config


def from_stored(tree: Mapping[str, Any]) -> Config:
    """Return the Config that this or an earlier version has stored, such as that of a bundle.

    Raises ConfigError as `from_dict` does.
    """
    return _checked(of_stored(tree))


def _checked(tree: Mapping[str, Any]) -> Config:
    """Return the Config of a tree with the keys of now."""
    try:
        # JSON mode: strict on numbers and texts, yet an array may fill a tuple.
        return Config.model_validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(explained(error)) from None


def _refuse_settings_of_other_backbones(config: Config) -> None:
    """Raise ConfigError where a setting has no effect, because `cf.model` is another backbone.

    Defaults pass: a complete configuration lists them, and an overlay takes back a value of a file by them.
    Stored configurations are not checked, because a default may change after they were written.
    """
    mistakes = [
        f"cf.{path}: {json.dumps(value)}, expected its default {json.dumps(default)} where cf.model is "
        f"{config.cf.model}; remove it, or set cf.model={path.split('.')[0]}"
        for path, (value, default) in config.cf.settings_of_others().items()
    ]
    if mistakes:
        raise ConfigError("; ".join(mistakes))


def _tree(paths: Iterable[str | Path], overrides: Iterable[str], report: Say) -> dict[str, Any]:
    """Return the settings of files and overrides, one laid over the other."""
    tree: dict[str, Any] = {}
    for path in paths:
        _overlay(tree, _read_file(Path(path), report))
    for override in overrides:
        _overlay(tree, _read_override(override, report))
    return tree


def _read_file(path: Path, report: Say = _silent) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a YAML configuration") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}, expected a YAML configuration") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None
    tree = parsed(text, str(path))
    if isinstance(tree, Plain) and tree in NULLS:
        return {}
    if not isinstance(tree, dict):
        kind = "list" if isinstance(tree, list) else "text"
        raise ConfigError(f"{path}: a {kind}, expected a mapping of sections")
    return dict(typed(renamed(tree, report), Config))


def _read_override(override: str, report: Say = _silent) -> dict[str, Any]:
    """Return the tree of one `section.key=value`; errors quote no value that may be secret."""
    found = _KEY.match(override)
    key = renamed_path(found.group(1), report) if found else ""
    keys, kind = setting_at(key)
    after = override[found.end() :] if found else override
    if not key or not after.startswith("="):
        shown = "spark.settings" if key.startswith("spark.settings.") else key
        blank = ", without a blank before the =" if after.lstrip().startswith("=") else ""
        raise ConfigError(f"--set {shown or '…'}: expected section.key=value{blank}")
    value = after[1:]
    if not _is_unicode(value):
        raise ConfigError(f"--set {key}: the value is not UTF-8")
    branch = _read_value(value, kind, key)
    for part in reversed(keys):
        branch = {part: branch}
    return branch if is_scalar(kind) else dict(typed(renamed(branch, report), Config))


def _read_value(value: str, kind: Any, key: str) -> Any:
    """Return the value of an override: of a text what was written, of a list or mapping what YAML parses.

    Quotes around the whole value are YAML's, as in a file.
    """
    if is_scalar(kind):
        quoted = unquoted(value)
        return typed(Plain(value if takes_text(kind) else value.strip()), kind) if quoted is None else quoted
    tree = parsed(value, f"--set {key}")
    if comment(value):
        raise ConfigError(f"--set {key}: a # begins a comment in YAML; put texts that contain it into quotes")
    return tree


def _is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: an argument of other bytes has lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _overlay(tree: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Lay `extra` over `tree` in place, mapping by mapping.

    A value in the place of a section stays, so that the check refuses it.
    """
    for key, value in extra.items():
        known = tree.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            _overlay(known, value)
        elif not (isinstance(value, dict) and key in tree):
            tree[key] = value

"""The manifest of a bundle: what it is, what it was made of, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import date
from typing import Any

import numpy as np

FORMAT_VERSION = 1
OUTSIDE_THE_HASH = ("bundle_id", "created_at")
DRAWN_AT_RANDOM = ("table_ids", "fingerprint")
"""Keys that contain ids of tables. Without them the same training of equal tables has one bundle_id."""
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""What an id or a fingerprint may be: they are joined to paths."""


@dataclass(frozen=True)
class LLMIdentity:
    """Which LLM a bundle was trained with."""

    name: str
    weight_hash: str
    """sha256 of all its tensors."""
    width: int
    """H."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further keys, as in `Manifest`."""


@dataclass(frozen=True)
class EncoderIdentity:
    """Which sentence encoder embedded a bundle's texts."""

    model: str
    content_hash: str
    """sha256 of all that an embedding depends on."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further keys, as in `Manifest`."""


@dataclass(frozen=True)
class Manifest:
    """The fields of `manifest.json`.

    Texts and mappings that nobody has set yet are empty, and not written.
    """

    llm: LLMIdentity
    text_encoder: EncoderIdentity
    num_items: int
    """I."""
    cf_num_items: int
    """Items of the CF model: those of a child's parent."""
    parent_id: str | None = None
    """The bundle that this one extends by items; None: it was trained."""
    purpose: str = ""
    """serving or evaluation; empty: its training is not finished."""
    trained_before: str = ""
    """The knowledge cut-off, YYYY-MM-DD: nothing at or after it was seen."""
    fingerprint: str = ""
    """Of the inputs and settings of its training."""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    table_versions: Mapping[str, int] = field(default_factory=dict)
    table_ids: Mapping[str, str] = field(default_factory=dict)
    """Delta's ids of the tables whose versions these are; empty from an older version."""
    package_versions: Mapping[str, str] = field(default_factory=dict)
    format_version: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path → sha256 of every file but the manifest."""
    bundle_id: str = ""
    """Hash of the content."""
    created_at: str = ""
    """When it was written, UTC, ISO 8601."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further keys that another version of the program wrote; they are kept."""

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Return the manifest of a file's text; raises KeyError, TypeError or ValueError where it is none."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """Return the manifest of a JSON object.

        Raises KeyError, TypeError or ValueError where a field is missing, of another type, or no name, date
        or count.
        """
        arguments = _arguments(cls, values)
        arguments["llm"] = LLMIdentity(**_arguments(LLMIdentity, values["llm"]))
        arguments["text_encoder"] = EncoderIdentity(**_arguments(EncoderIdentity, values["text_encoder"]))
        manifest = cls(**arguments)
        manifest._check()
        return manifest

    def _check(self) -> None:
        """Raise TypeError or ValueError where a field is not what the rest of the program takes it for."""
        llm = self.llm
        encoder = self.text_encoder
        names = {"bundle_id": self.bundle_id, "fingerprint": self.fingerprint, "parent_id": self.parent_id}
        texts = {"purpose": self.purpose, "created_at": self.created_at, "llm.name": llm.name}
        texts |= {"llm.weight_hash": llm.weight_hash, "text_encoder.model": encoder.model}
        texts |= {"text_encoder.content_hash": encoder.content_hash, "trained_before": self.trained_before}
        for name, text in {**texts, **names}.items():
            if not isinstance(text, str) and not (name == "parent_id" and text is None):
                raise TypeError(f"{name} is {text!r}, expected a text")
        for name, text in names.items():
            if text and not PLAIN.fullmatch(text):
                raise ValueError(f"{name} is {text!r}, expected a name of letters and digits")
        if self.trained_before and str(date.fromisoformat(self.trained_before)) != self.trained_before:
            raise ValueError(f"trained_before is {self.trained_before!r}, expected YYYY-MM-DD")
        counts = {"num_items": self.num_items, "cf_num_items": self.cf_num_items, "llm.width": llm.width}
        for name, count in counts.items():
            if not _is_whole(count) or count < 1:
                raise ValueError(f"{name} is {count!r}, expected a number from 1")
        if self.cf_num_items > self.num_items:
            raise ValueError(f"cf_num_items is {self.cf_num_items:,}, more than num_items {self.num_items:,}")
        for name in ("figures", "table_versions", "package_versions", "files"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} is {getattr(self, name)!r}, expected an object")
        if not all(map(_is_whole, self.table_versions.values())):
            raise TypeError(f"table_versions are {dict(self.table_versions)}, expected numbers")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object: NaN and infinite figures become null, NumPy numbers plain ones."""
        values = asdict(self)
        others = values.pop("others")
        known = {
            name: value for name, value in values.items() if value not in ("", {}, 0) or name == "parent_id"
        }
        for name in ("llm", "text_encoder"):
            known[name] |= known[name].pop("others")
        return _plain({**known, **others})

    def with_origin(self, origin: Mapping[str, Any]) -> Manifest:
        """Return it with what is known of the training (purpose, trained_before, figures, versions, …)."""
        return Manifest.from_dict({**self.to_dict(), **origin})

    def of_child(self, num_items: int) -> Manifest:
        """Return the manifest of a child with `num_items` items, not written yet."""
        return replace(
            self, parent_id=self.bundle_id, num_items=num_items, bundle_id="", created_at="", files={}
        )


def content_id(values: Mapping[str, Any]) -> str:
    """Return the bundle_id of a manifest's JSON object: 16 hex digits of its SHA-256.

    The files' checksums are in it, so it names their content. bundle_id and created_at are left out, and
    where there are ids of tables, what they are part of.
    """
    left_out = (*OUTSIDE_THE_HASH, *(DRAWN_AT_RANDOM if "table_ids" in values else ()))
    content = {key: value for key, value in values.items() if key not in left_out}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_whole(value: object) -> bool:
    """Return whether a value of JSON is a whole number; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _arguments(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that make a dataclass of a JSON object; keys it does not name go to `others`.

    Raises TypeError where the JSON value is no object, KeyError where it lacks a key.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"expected a JSON object, found {type(values).__name__}")
    for one in fields(kind):
        if one.default is MISSING and one.default_factory is MISSING and one.name not in values:
            raise KeyError(one.name)
    named = {field.name for field in fields(kind)} - {"others"}
    arguments = {name: value for name, value in values.items() if name in named}
    return {**arguments, "others": {name: value for name, value in values.items() if name not in named}}


def _plain(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""The fingerprint of what a result depends on: equal parts, equal fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def fingerprint(**parts: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the parts as JSON with sorted keys; sections may be parts."""
    text = json.dumps(parts, sort_keys=True, default=_json_value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _json_value(part: Any) -> Any:
    return part.model_dump(mode="json") if isinstance(part, BaseModel) else str(part)

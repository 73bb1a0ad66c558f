"""An item's text as the models read it, and its hash; workers of Spark import this without any model."""

from __future__ import annotations

import hashlib
import json


def item_text(title: str, description: str | None) -> str:
    """Return what the encoder reads of an item: "Title: t, Description: d" (A-LLMRec, section 4.1).

    Without a description there is no second part.
    """
    description = (description or "").strip()
    return f"Title: {title}, Description: {description}" if description else f"Title: {title}"


def text_hash(title: str, description: str | None) -> str:
    """Return the hash by which a reworded item is noticed: 32 hex digits of what the models read."""
    text = json.dumps([title, item_text(title, description)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]

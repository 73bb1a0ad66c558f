"""An item's text for the models, and its hash. Spark's workers import it without a model."""

from __future__ import annotations

import hashlib
import json


def item_text(title: str, description: str | None) -> str:
    """Return "Title: t, Description: d", the encoder's text (A-LLMRec, section 4.1).

    Without a description there is only the title.
    """
    description = (description or "").strip()
    return f"Title: {title}, Description: {description}" if description else f"Title: {title}"


def text_hash(title: str, description: str | None) -> str:
    """Return the hash that recognises a reworded item: 32 hex digits."""
    text = json.dumps([title, item_text(title, description)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]

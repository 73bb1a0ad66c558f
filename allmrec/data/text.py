"""Text of shops made plain: no HTML, no control characters, white space folded.

What a person would not see is not there.
"""

from __future__ import annotations

import html
import re
import unicodedata

TITLE_CHARACTERS = 1000
"""Maximum length of a title; a longer one is cut."""

_MAX_ESCAPES = 3
"""How often a text may be escaped within another, per pass."""
_MAX_PASSES = 20
"""Maximum number of times that a text is cleaned; it bounds what hostile nesting costs."""
_COMMENT = re.compile(
    r"<!--.*?(?:-->|$)|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|$)", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
# Crawled titles also hold tags that were cut off; an attribute tells them from "a <b" in a sentence.
_CUT_TAG = re.compile(r"<[a-zA-Z][\w-]*\s+[\w-]+\s*=[^<>]*$")
# Control characters, soft hyphen, marks of the writing direction, zero-width characters, invisible tags.
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = re.compile("[\u200c\u200d]+")
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Return `text` without HTML tags, entities and invisible characters, white space folded to one space.

    Markup may be escaped or nested: a cleaned text is cleaned again until nothing changes (at most 20 times).
    """
    cleaned = _cleaned_once(text)
    for _ in range(_MAX_PASSES - 1):
        if cleaned == text or not ("&" in cleaned or "<" in cleaned):
            break
        text, cleaned = cleaned, _cleaned_once(cleaned)
    return cleaned


def clean_title(title: str) -> str:
    """Return the cleaned title, at most `TITLE_CHARACTERS` long."""
    cleaned = clean(title)
    # Without what is cut off, the rest may be markup (as in "<b x=5 < 6").
    return cleaned if len(cleaned) <= TITLE_CHARACTERS else clean(cleaned[:TITLE_CHARACTERS])


def _cleaned_once(text: str) -> str:
    """Return the text after one pass: entities, then tags, invisible characters and white space."""
    for _ in range(_MAX_ESCAPES):
        if "&" not in text:
            break
        text = html.unescape(text)
    if "<" in text:
        text = _CUT_TAG.sub(" ", _TAG.sub(" ", _COMMENT.sub(" ", text)))
    text = _INVISIBLE.sub("", text)
    text = _JOINERS.sub(_needed_joiner, text)
    return _SPACE.sub(" ", text).strip()


def _needed_joiner(joiners: re.Match[str]) -> str:
    """Return the one zero-width joiner that the text around needs, or nothing.

    It is needed within an emoji, and between letters of scripts without upper case (Persian, Hindi).
    """
    before, after = joiners.string[: joiners.start()][-1:], joiners.string[joiners.end() :][:1]
    joins = (
        before
        and after
        and all(unicodedata.category(side) in ("So", "Sk", "Mn", "Mc", "Lo") for side in (before, after))
    )
    return joiners.group()[0] if joins else ""

"""Text of shops made plain: no HTML, no control characters, white space folded. What a person would not see is not there."""

from __future__ import annotations

import html
import re
import unicodedata

TITLE_CHARACTERS = 1000
"""A longer title is cut."""

_MOST_ESCAPED = 3
_COMMENT = re.compile(
    r"<!--.*?(?:-->|$)|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|$)", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
# Crawled titles also hold tags that were cut off; an attribute tells them from "a <b" in a sentence.
_CUT_TAG = re.compile(r"<[a-zA-Z][\w-]*\s+[\w-]+\s*=[^<>]*$")
# Control characters, soft hyphen, marks that override the writing direction, zero-width characters, invisible tags.
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = re.compile("[\u200c\u200d]+")
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Return `text` without HTML tags and entities (escaped up to three times) and invisible characters, white space folded to one space."""
    for _ in range(_MOST_ESCAPED):
        if "&" not in text:
            break
        text = html.unescape(text)
    if "<" in text:
        text = _CUT_TAG.sub(" ", _TAG.sub(" ", _COMMENT.sub(" ", text)))
    text = _INVISIBLE.sub("", text)
    if _JOINERS.search(text):
        text = _JOINERS.sub(lambda found: _needed_joiner(found), text)
    return _SPACE.sub(" ", text).strip()


def clean_title(title: str) -> str:
    """Return the cleaned title, at most `TITLE_CHARACTERS` long."""
    return clean(title)[:TITLE_CHARACTERS].rstrip()


def _needed_joiner(found: re.Match[str]) -> str:
    """Keep one zero-width joiner inside an emoji or between letters of scripts without upper case (Persian, Hindi); drop all others."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    joins = (
        before
        and after
        and all(unicodedata.category(side) in ("So", "Sk", "Mn", "Mc", "Lo") for side in (before, after))
    )
    return found.group()[0] if joins else ""

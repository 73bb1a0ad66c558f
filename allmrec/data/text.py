"""Cleaning of texts: no HTML, no control characters, folded white space.

Invisible characters are removed.
"""

from __future__ import annotations

import html
import re
import unicodedata

TITLE_CHARACTERS = 1000
"""Maximal length of a title; a longer one is truncated."""

_MAX_ESCAPES = 3
"""Maximal depth of escapes within a text, per pass."""
_MAX_PASSES = 20
"""Maximal number of passes over a text. It bounds the cost of hostile nesting."""
_COMMENT = re.compile(r"<!--.*?(?:-->|$)|<!doctype[^<>]*>", re.DOTALL | re.IGNORECASE)
_ELEMENTS = frozenset(
    "a abbr acronym address article aside audio b bdi bdo big blockquote body br button canvas caption "
    "center cite code col colgroup dd del details dfn div dl dt em embed fieldset figcaption figure "
    "font footer form frame h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label "
    "legend li link main map mark meta nav nobr noscript object ol optgroup option p param picture pre "
    "q s samp script section select small source span strike strong style sub summary sup svg table "
    "tbody td textarea tfoot th thead tr tt u ul var video wbr".split()
)
"""Names of HTML elements, without `title`, which shops write as a word."""
_NEVER_WORDS = frozenset({"br", "hr", "img", "wbr", "script", "style"})
"""Elements whose bare opening tag is markup."""
_PARAGRAPHS = frozenset({"p", "li", "tr", "td", "dt", "dd"})
"""Elements that need no closing tag. Several of them, or one at the start, are markup."""
_TAG = re.compile(r"<(?P<close>/?)(?P<name>[a-zA-Z][\w:-]*)(?P<rest>(?:\s[^<>]*)?/?)>")
_ATTRIBUTE = re.compile(r"\s[\w:-]+\s*=")
_QUOTED_ATTRIBUTE = re.compile(r"\s[\w:-]+\s*=\s*[\"']")
# Crawled titles contain truncated tags. An attribute distinguishes them from "a <b" in a sentence.
_CUT_TAG = re.compile(r"<([a-zA-Z][\w:-]*)\s+[\w:-]+\s*=[^<>]*$")
_SCRIPTS = {
    name: (
        re.compile(rf"<{name}\b[^<>]*>.*?</{name}\s*>", re.DOTALL | re.IGNORECASE),
        re.compile(rf"</{name}\s*>", re.IGNORECASE),
        re.compile(rf"<{name}\s[^<>]*=[^<>]*>.*$", re.DOTALL | re.IGNORECASE),
    )
    for name in ("script", "style")
}
"""Element → the element with its content, its closing tag, and a truncated one with attributes."""
# Control characters, soft hyphen, marks of the writing direction, zero-width characters, invisible tags.
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = re.compile("[\u200c\u200d]+")
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Return `text` without HTML, entities and invisible characters, white space folded.

    Name and neighbourhood make a tag HTML: `<b>bold</b>` is HTML, the brackets of `List<String>` and of `The
    <b> Show` are text. Markup may be escaped or nested, so that a text is cleaned until it does not change
    (at most 20 times).
    """
    cleaned = _cleaned_once(text)
    for _ in range(_MAX_PASSES - 1):
        if cleaned == text or not ("&" in cleaned or "<" in cleaned):
            break
        text = cleaned
        cleaned = _cleaned_once(cleaned)
    return cleaned


def clean_title(title: str) -> str:
    """Return the cleaned title, at most `TITLE_CHARACTERS` long."""
    cleaned = clean(title)
    # The rest of a truncated title may be markup (as in "<b x=5 < 6").
    return cleaned if len(cleaned) <= TITLE_CHARACTERS else clean(cleaned[:TITLE_CHARACTERS])


def _cleaned_once(text: str) -> str:
    """Return the text after one pass: markup, entities, invisible characters, white space.

    Markup comes first, so that an escaped tag, which is meant to be seen, is judged by itself.
    """
    if "<" in text:
        text = _without_markup(text)
    for _ in range(_MAX_ESCAPES):
        if "&" not in text:
            break
        text = html.unescape(text)
    text = _INVISIBLE.sub("", text)
    text = _JOINERS.sub(_needed_joiner, text)
    return _SPACE.sub(" ", text).strip()


def _without_markup(text: str) -> str:
    """Return the text without comments, scripts and tags, if it is HTML."""
    plain = _COMMENT.sub(" ", text)
    for whole, closing, cut_off in _SCRIPTS.values():
        # Behind the last closing tag, every opening tag would search for one in vain.
        end = max((match.end() for match in closing.finditer(plain)), default=0)
        plain = whole.sub(" ", plain[:end]) + cut_off.sub(" ", plain[end:])
    cut = _CUT_TAG.search(plain)
    if cut and _is_element(cut[1], cut[0]):
        plain = plain[: cut.start()]
    tags = list(_TAG.finditer(plain))
    names = {tag["name"] for tag in tags if _is_element(tag["name"], tag["rest"])}
    tags = [tag for tag in tags if tag["name"] in names]
    if plain == text and not _must_be_html(tags, plain):
        return text
    parts: list[str] = []
    end = 0
    for tag in tags:
        parts.append(plain[end : tag.start()])
        end = tag.end()
    return " ".join([*parts, plain[end:]])


def _is_element(name: str, rest: str) -> bool:
    """Return whether a tag's name, or its quoted attribute, is HTML."""
    return name.lower() in _ELEMENTS or ":" in name or _QUOTED_ATTRIBUTE.search(rest) is not None


def _must_be_html(tags: list[re.Match[str]], text: str) -> bool:
    """Return whether a tag cannot be a word in brackets.

    Markup is closing tags, tags with attributes, and those of `_NEVER_WORDS` and `_PARAGRAPHS`.
    """
    num_paragraphs = 0
    for tag in tags:
        name = tag["name"].lower()
        if (
            tag["close"]
            or tag["rest"].endswith("/")
            or name in _NEVER_WORDS
            or _ATTRIBUTE.search(tag["rest"])
        ):
            return True
        num_paragraphs += name in _PARAGRAPHS
        if name in _PARAGRAPHS and (num_paragraphs > 1 or not text[: tag.start()].strip()):
            return True
    return False


def _needed_joiner(joiners: re.Match[str]) -> str:
    """Return the zero-width joiner that the neighbours need, or nothing.

    An emoji needs it, and letters of scripts without upper case (Persian, Hindi).
    """
    before = joiners.string[: joiners.start()][-1:]
    after = joiners.string[joiners.end() :][:1]
    joins = (
        before
        and after
        and all(unicodedata.category(side) in ("So", "Sk", "Mn", "Mc", "Lo") for side in (before, after))
    )
    return joiners.group()[0] if joins else ""

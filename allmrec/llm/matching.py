"""The candidates whose titles a free text matches (`scoring.match`).

| rule | a title matches |
|---|---|
| `begins` | if the text begins with it, quotes aside, and its last word ends there: the longest one |
| `contains` | if it is between the first and the last quote of the first line: all of them |

`begins` folds case and white space. `contains` is the hit of the authors' evaluation (ghdtjr/A-LLMRec at
e216bbc), which folds case alone. The rule searches the whole of a text without quotes, and nothing of a text
with a single quote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Rule = Literal["begins", "contains"]
LABEL = '"item title" : '
"""The authors' evaluation removes this label from a text before it looks for quotes."""


def matching_titles(text: str, titles: Sequence[str], rule: Rule) -> list[int]:
    """Return the indices of the titles that match, longest first. By `begins` at most one."""
    if rule == "contains":
        inside = _inside_quotes(text)
        found = [index for index, title in enumerate(titles) if title.lower() in inside]
    else:
        found = [index for index, title in enumerate(titles) if _begins(text, title)]
    found.sort(key=lambda index: -len(titles[index]))
    return found if rule == "contains" else found[:1]


def _begins(text: str, title: str) -> bool:
    words = title.casefold().split()
    # The pattern takes as few quotes as possible before the title, which may begin with quotes of its own.
    pattern = r'(?:"|[^\S\n])*?' + r"\s+".join(re.escape(word) for word in words) + r"(?:(?<!\w)|(?!\w))"
    return bool(words) and re.match(pattern, text.strip().casefold()) is not None


def _inside_quotes(text: str) -> str:
    line = text.strip().split("\n")[0].strip().lower().replace(LABEL, "")
    first = line.find('"')
    return line if first < 0 else line[first + 1 : line.rfind('"')]

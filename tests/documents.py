"""The repository's documents as tests read them: blocks, links, headings, paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST = ("README.md", "jobs/README.md")
"""Documents whose `sh` blocks are run first, in this order: later ones build on what earlier ones leave."""
LANGUAGES = {"sh", "bash", "yaml", "text"}
"""sh: run; bash: checked, not run; yaml: a reader's configuration; text: a picture or an output."""


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Return its path in the repository."""
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        """Return the whole file."""
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """Return the file without its fenced blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.M | re.S)

    def blocks(self, *languages: str) -> list[str]:
        """Return the fenced blocks of these languages, or of all where none is named."""
        fenced = re.findall(r"^```([^\n]*)\n(.*?)^```$", self.text, re.M | re.S)
        return [block for language, block in fenced if not languages or language in languages]

    def languages(self) -> set[str]:
        """Return the languages of its fenced blocks."""
        return set(re.findall(r"^```([^\n]*)\n.*?^```$", self.text, re.M | re.S))

    def links(self) -> list[str]:
        """Return the targets of its links."""
        return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", self.prose))

    def anchors(self) -> set[str]:
        """Return the anchors of its headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.M)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def code(self) -> list[str]:
        """Return what its prose has between backticks."""
        return re.findall(r"`([^`\n]+)`", self.prose)


def documents() -> list[Document]:
    """Return every Markdown file of the repository, those of `FIRST` first."""
    hidden = {path for path in ROOT.rglob("*.md") if any(part.startswith(".") for part in path.parts)}
    paths = [path for path in ROOT.rglob("*.md") if path not in hidden and "node_modules" not in path.parts]
    names = sorted(str(path.relative_to(ROOT)) for path in paths)
    return [Document(ROOT / name) for name in [*FIRST, *(name for name in names if name not in FIRST)]]

"""Writes the generated parts of the documents: `python -m tests.write_docs` (`make docs`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from allmrec import config
from allmrec.data import rules
from allmrec.night import gates
from allmrec.tables import schema_reference as tables

ROOT = Path(__file__).parents[1]

GENERATED: dict[str, tuple[str, Callable[[], str]]] = {
    "configuration": ("conf/README.md", config.reference),
    "rarely": ("conf/README.md", config.rare_reference),
    "tables": ("allmrec/tables/README.md", tables.reference),
    "values": ("jobs/README.md", rules.reference),
    "gates": ("jobs/README.md", gates.reference),
}
"""Marker → (document, the function that writes what is between `<!-- marker -->` and `<!-- /marker -->`)."""


def fresh() -> Iterator[tuple[Path, str]]:
    """Yield every document with a generated part, and its text as it must be.

    Raises ValueError where a document lacks its markers.
    """
    for marker, (name, write) in GENERATED.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        parts = re.split(rf"(?<=<!-- {marker} -->\n).*?(?=<!-- /{marker} -->)", text, flags=re.S)
        if len(parts) != 2:
            raise ValueError(f"{name}: expected one part between <!-- {marker} --> and <!-- /{marker} -->")
        yield ROOT / name, f"{parts[0]}{write().strip()}\n{parts[1]}"


if __name__ == "__main__":
    for path, text in fresh():
        path.write_text(text, encoding="utf-8")

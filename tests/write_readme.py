"""Writes the generated section of the README: `python -m tests.write_readme`."""

import re
from pathlib import Path

from allmrec.config import reference

if __name__ == "__main__":
    path = Path(__file__).parents[1] / "README.md"
    fresh = f"<!-- configuration -->\n{reference()}<!-- /configuration -->"
    path.write_text(
        re.sub(
            r"<!-- configuration -->.*<!-- /configuration -->",
            lambda _: fresh,
            path.read_text(encoding="utf-8"),
            flags=re.S,
        ),
        encoding="utf-8",
    )

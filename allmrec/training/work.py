"""The work of a training: data, settings, folder, report and launcher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from allmrec.config import Config
from allmrec.reporting import Report
from allmrec.training.loader import Snapshot


@dataclass(frozen=True)
class Work:
    """A training on a snapshot."""

    snapshot: Snapshot
    config: Config
    folder: Path
    """Folder of the checkpoints. A killed training that is called again resumes from them."""
    report: Report
    launch: Launch | None = None
    """The launcher of several processes; None: this process trains alone."""

    def part(self, name: str) -> Work:
        """Return the work of a part, in a folder of its own."""
        return replace(self, folder=self.folder / name)


Launch = Callable[[str, Work], None]
"""`launch(part, work)` trains a part in several processes (`allmrec.training.process`).

They read the content of the part's folder, and write a finished checkpoint there.
"""

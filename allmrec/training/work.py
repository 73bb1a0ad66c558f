"""What the training of a part is given: the data, the settings, a folder to work in, where lines go."""

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
    """Where checkpoints lie: called again after a kill, a training goes on from them."""
    report: Report
    launch: Launch | None = None
    """What starts several processes; None: this process trains alone."""

    def part(self, name: str) -> Work:
        """Return the work of a part, in a folder of its own."""
        return replace(self, folder=self.folder / name)


Launch = Callable[[str, Work], None]
"""`launch(part, work)` trains the part of that name in several processes (`allmrec.training.process`) on what
the part's folder holds; there they leave a finished checkpoint."""

"""`allmrec` as a process of its own: started, watched by what it says, and hit by signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.chaos.cases import Broken
from tests.chaos.shop import Shop, Work
from tests.conftest import QUICK_OVERRIDE, SHORT_RUNS

SECONDS = 400
"""After so long a process counts as hanging."""


class Night:
    """A process that does a work; what it says is in the file `said`."""

    def __init__(self, shop: Shop, root: Path, work: Work, command: list[str] | None = None) -> None:
        scratch = root.with_name(f"{root.name}-{time.monotonic_ns()}")
        (scratch / "spark").mkdir(parents=True)
        self.said = scratch / "said"
        places = {"TMPDIR": str(scratch), "SPARK_LOCAL_DIRS": str(scratch / "spark")}
        short = {"OMP_NUM_THREADS": "1", "JAVA_TOOL_OPTIONS": SHORT_RUNS}
        with self.said.open("wb") as output:
            self.process = psutil.Popen(
                [*(command or allmrec(work)), *arguments(shop, root, work)],
                env={**os.environ, **short, **places},
                # spark-submit sends both of the driver's to its standard output.
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.said.read_text(encoding="utf-8", errors="replace")

    @property
    def num_lines(self) -> int:
        return self.text.count("\n")

    def wait_for(self, words: str) -> None:
        """Wait until the process says `words`, or ends. Raises Broken where it does neither."""
        until = time.monotonic() + SECONDS
        while words not in self.text and self.process.is_running() and self.process.poll() is None:
            if time.monotonic() > until:
                raise Broken(f"{self.said}: not said within {SECONDS} s: {words}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait for the end and return the exit code; whatever the process started has ended then too."""
        return int(self.process.wait(SECONDS))

    def descendants(self, name: str) -> list[psutil.Process]:
        """Return the living processes below this one whose command line contains `name`."""
        found = []
        with contextlib.suppress(psutil.Error):
            for process in self.process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if name in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def kill_all(self) -> None:
        """Send SIGKILL to the process and its JVM at once, and wait until nothing of it is left."""
        below = self.descendants("")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        _, alive = psutil.wait_procs(below, timeout=20)
        if alive:
            raise Broken(f"{len(alive)} processes outlived their driver: {alive[0].cmdline()[:6]}")

    def require_one_line(self, code: int, expected: int, words: str = "") -> None:
        """Raise Broken unless the process ended with the expected code and one line that says why."""
        text = self.text
        lines = [line for line in text.splitlines() if line.startswith("error:")]
        if code != expected or len(lines) != (expected != 0) or words not in "".join(lines):
            raise Broken(
                f"{self.said}: exit code {code}, expected {expected} with one line: {lines or text[-600:]}"
            )
        if "Traceback" in text:
            raise Broken(f"{self.said}: a traceback is shown beside {lines}")


@contextlib.contextmanager
def running(shop: Shop, root: Path, work: Work, command: list[str] | None = None) -> Iterator[Night]:
    """Yield a process that does a work; nothing of it is left after the block."""
    one = Night(shop, root, work, command)
    try:
        yield one
    finally:
        if one.process.is_running():
            one.kill_all()


def allmrec(work: Work) -> list[str]:
    """Return the command for a work."""
    name = "nightly" if work.first == work.last else "backfill"
    return [str(Path(sys.executable).with_name("allmrec")), name]


def arguments(shop: Shop, root: Path, work: Work) -> list[str]:
    """Return the command's options for a work on the tables in `root`."""
    days = ["--run-date", str(work.first)]
    if work.first != work.last:
        days = ["--from", str(work.first), "--to", str(work.last)]
    settings = [*shop.settings(root), QUICK_OVERRIDE]
    sets = [part for value in settings for part in ("--set", value)]
    return [*days, *(["--full"] if work.full else []), *sets]

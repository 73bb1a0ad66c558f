"""The log file of Spark's JVM and its Python workers.

Commands print its end when a step fails.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import tempfile
from pathlib import Path

from allmrec.spark.secret_settings import without_secrets

NUM_CAUSES = 3
"""How many lines of the log an error quotes."""
MAX_CAUSE_CHARACTERS = 300
_CAUSE = re.compile(r"error|exception|could not|invalid|not found|no such|denied|no space left", re.I)

_log: Path | None = None


def spark_log() -> Path | None:
    """Return the log of this process's JVM, or None (spark-submit)."""
    return _log


def new_spark_log() -> Path:
    """Create an empty log for `spark_log` that only this user can read."""
    global _log
    # Another user of this machine could put a link at a predictable name.
    descriptor, name = tempfile.mkstemp(prefix=f"allmrec-spark-{os.getpid()}-", suffix=".log")
    os.close(descriptor)
    _log = Path(name)
    return _log


def remove_at_exit(log: Path) -> None:
    """Remove the log when this process ends, except by an uncaught exception."""

    def remove() -> None:
        # The interpreter stores the exception here whose traceback it printed.
        if not hasattr(sys, "last_value"):
            log.unlink(missing_ok=True)

    atexit.register(remove)


def end_of(log: Path, num_lines: int) -> list[str]:
    """Return the last lines of the log, without values of `spark.settings`."""
    text = without_secrets(log.read_text(encoding="utf-8", errors="replace"))
    return text.splitlines()[-num_lines:]


def causes(log: Path) -> str:
    """Return the last lines about failures, else the log's last lines."""
    text = without_secrets(log.read_text(encoding="utf-8", errors="replace"))
    # Without empty lines and stack traces.
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("at ")]
    telling = [line for line in lines if _CAUSE.search(line)] or lines
    return " | ".join(line[:MAX_CAUSE_CHARACTERS] for line in telling[-NUM_CAUSES:]) or "none"

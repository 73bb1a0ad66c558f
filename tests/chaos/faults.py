"""Faults at the writes of a night: the process dies before one, in the middle of it, or right after it."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import patch

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from allmrec.errors import UserError
from allmrec.spark import filesystem
from allmrec.tables.delta import Tables
from allmrec.tables.staging import Staging

HOW = ("before", "in the middle of", "right after")
"""Where a kill finds a write: not begun, begun, or done without anybody knowing."""


class Killed(BaseException):
    """The process is dead: nothing catches this, and it writes nothing any more."""


class Write(NamedTuple):
    """A write of a night, and how long it took in seconds."""

    name: str
    """The table; or `staging`, `end of staging`, `bundle`."""
    seconds: float


@dataclass
class Faults:
    """What is written while it is injected; with `at`, the write of that number (from 0) kills the run."""

    at: int | None = None
    how: str = "before"
    delay: float = 0.0
    """In the middle: seconds from the beginning of the write until Spark's jobs are cancelled."""
    writes: list[Write] = field(default_factory=list)
    met: str = ""
    """The write that killed the run; empty while it lives."""

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """Let every write of this process go through `write` while the block runs."""
        places: list[tuple[Any, str, Callable[..., str]]] = [
            (Tables, "retried", lambda tables, name, commit: name),
            (Staging, "add", lambda staging, rows, piece: "staging"),
            (Staging, "delete", lambda staging: "end of staging"),
            (filesystem, "_put_file", lambda spark, local, uri: "bundle"),
        ]
        with contextlib.ExitStack() as patches:
            for owner, attribute, name_of in places:
                original = getattr(owner, attribute)
                patches.enter_context(patch.object(owner, attribute, self._through(original, name_of)))
            yield

    def _through(self, original: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        """Return a function that does as `original`, unless it is killed."""

        def write(*arguments: Any) -> Any:
            first = arguments[0]
            spark = first if isinstance(first, SparkSession) else first.spark
            return self.write(spark, name_of(*arguments), lambda: original(*arguments))

        return write

    def write(self, spark: SparkSession, name: str, do: Callable[[], Any]) -> Any:
        """Do one write and note it. Raises Killed where it is the one, and for every write after that."""
        is_it = self.at == len(self.writes)
        if self.met or (is_it and self.how == "before"):
            self._die(name)
        start = time.monotonic()
        try:
            with self._cancelled(spark) if is_it and self.how == HOW[1] else contextlib.nullcontext():
                result = do()
        except (UserError, PySparkException, Py4JError):
            if is_it:
                self._die(f"{name}, half-way")
            raise
        self.writes.append(Write(name, time.monotonic() - start))
        if is_it:
            self._die(name)
        return result

    def _die(self, name: str) -> None:
        self.met = self.met or name
        raise Killed(self.met)

    @contextlib.contextmanager
    def _cancelled(self, spark: SparkSession) -> Iterator[None]:
        """Cancel Spark's jobs `delay` seconds after the block begins, if it still runs then."""
        timer = threading.Timer(self.delay, spark.sparkContext.cancelAllJobs)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def places(writes: list[Write], num: int, rng: random.Random) -> list[int]:
    """Return `num` numbers of writes: every name in turn, in random order, any write of that name."""
    by_name: dict[str, list[int]] = {}
    for number, write in enumerate(writes):
        by_name.setdefault(write.name, []).append(number)
    names = list(by_name)
    rng.shuffle(names)
    return [rng.choice(by_name[names[turn % len(names)]]) for turn in range(num)]

"""Frames that Spark caches until a `with` block ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.sql import DataFrame


class CachedFrames:
    """Frames that Spark caches until the `with` block ends or fails.

    A run has one object for the frames that all steps share. Every step has one of its own.
    """

    def __init__(self) -> None:
        self._releases = ExitStack()
        self._by_name: dict[str, DataFrame] = {}

    def __enter__(self) -> CachedFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._by_name.clear()
        self._releases.close()

    def keep(self, frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK_DESER) -> DataFrame:
        """Return `frame`, which Spark caches at `level` from its first computation on."""
        self._releases.callback(_release, frame.persist(level))
        return frame

    def keep_once(self, name: str, make: Callable[[], DataFrame]) -> DataFrame:
        """Return the cached frame of that name; the first call makes it."""
        if name not in self._by_name:
            self._by_name[name] = self.keep(make())
        return self._by_name[name]


def _release(frame: DataFrame) -> None:
    try:
        frame.unpersist()
    except (Py4JError, OSError):
        # Spark's JVM has ended, and the frame with it. The error that ended it must stay visible.
        return

"""Progress of a Spark job over users: done / total, users per second, time left, said every few seconds from an accumulator."""

from __future__ import annotations

import threading
import time

from allmrec.runtime.context import Context


class Progress:
    """Context manager: while the job runs, a thread of the driver reports what the finished tasks have counted."""

    def __init__(self, context: Context, unit: str, total: int, every_seconds: float = 10.0) -> None:
        self.report, self.unit, self.total, self.every = context.report, unit, total, every_seconds
        self.counter = context.spark.sparkContext.accumulator(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        self.start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            done, seconds = self.counter.value, time.monotonic() - self.start
            if 0 < done < self.total:
                left = seconds * (self.total - done) / done
                self.report(
                    f"  {done:,} / {self.total:,} {self.unit}, {done / seconds:,.0f} a second, {left:,.0f} s left"
                )

"""Progress of a Spark job: tasks count, the driver reports."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import Accumulator
from pyspark.sql import SparkSession

from allmrec.reporting import Report

SECONDS_BETWEEN_LOOKS = 1.0
"""How often the driver reads the sum. The report decides how often it is printed."""


@contextmanager
def counting(
    spark: SparkSession, report: Report, label: str, total: int, unit: str
) -> Iterator[Accumulator[int]]:
    """Yield a counter for the block's tasks, which is reported meanwhile."""
    counter = spark.sparkContext.accumulator(0)
    ended = threading.Event()
    with report.progress(label, total, unit) as progress:

        def look() -> None:
            progress.update(counter.value)
            while not ended.wait(SECONDS_BETWEEN_LOOKS):
                progress.update(counter.value)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield counter
        finally:
            ended.set()
            thread.join()

"""What Spark's JVM and its Python workers write goes into a log, not to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pandas as pd
from pyspark.sql import SparkSession

from allmrec.spark.spark_log import spark_log


def test_what_a_python_worker_writes_goes_into_the_log(spark: SparkSession) -> None:
    def noisy(frames: Iterable[pd.DataFrame]) -> Iterable[pd.DataFrame]:
        print("written by a worker")
        print("an error of a worker", file=sys.stderr)
        yield from frames

    assert spark.range(3).mapInPandas(noisy, "id long").count() == 3
    log = spark_log()
    assert log is not None
    text = log.read_text()
    assert "written by a worker" in text
    assert "an error of a worker" in text

"""A JVM that is killed while it works: one line says so, and no library shows a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
from py4j.protocol import Py4JError

from allmrec.spark.troubles import as_user_error
from tests.conftest import SHORT_RUNS

PROGRAM = f"""
import logging, sys, threading, time
from allmrec.config import SparkConfig
from allmrec.spark.session import create_session
from allmrec.spark.troubles import as_user_error
from pyspark.sql import functions as F

settings = {{"spark.driver.extraJavaOptions": "{SHORT_RUNS}"}}
spark = create_session(SparkConfig(master="local[1]", driver_memory="512m", settings=settings))
frame = spark.range(10)
counted = spark.sparkContext.accumulator(0)
frame.rdd.foreach(lambda row: counted.add(1))
threading.Timer(1.0, spark.sparkContext._gateway.proc.kill).start()
works = (
    lambda: spark.range(10**12).agg(F.sum("id")).collect(),
    lambda: frame.where("id > 3"),
    lambda: F.col("id"),
)
for work in works:
    try:
        work()
    except Exception as error:
        print(as_user_error(error))
# The thread that reads the accumulators looks once a second.
time.sleep(2)
# As py4j does where the connection was reset; here it is closed.
logging.exception("Exception while sending command.", exc_info=ConnectionResetError())
"""


@pytest.mark.jvm
def test_a_killed_jvm_is_one_line_whatever_is_asked_of_it_then() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout + done.stderr
    assert all(line.startswith("Spark's JVM has ended") for line in lines), lines
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("says", "has_ended"),
    [
        ("An error occurred while calling o1483.write", True),
        ("org.apache.spark.sql.catalyst.trees.PySparkCurrentOrigin does not exist in the JVM", True),
        ("An error occurred while calling o7.collectToPython.\n: java.lang.OutOfMemoryError", False),
    ],
)
def test_what_py4j_says_of_a_lost_connection_is_told_from_a_failure(says: str, has_ended: bool) -> None:
    line = str(as_user_error(Py4JError(says)))
    assert line.startswith("Spark's JVM has ended") == has_ended
    assert line.endswith("run the same command again")

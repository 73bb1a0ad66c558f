"""Fixtures shared by all tests. Spark starts only where a test asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.class_archive import ARCHIVE, RECORD, USE, write_archive

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from allmrec.tables.delta import Tables

QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
"""Java options for many tiny jobs: the quick compiler only. By itself it gets a fifth of the usual code
cache; once that is full, it stops.
"""
SHORT_RUNS = f"{QUICK_JVM} {USE}"
"""The same for a JVM that may find the archive of classes."""
QUICK_SQL = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.executorEnv.ALLMREC_PRELOADED": "allmrec.runtime.workers",
    "spark.executorEnv.PYTHONPATH": str(Path(__file__).resolve().parents[1]),
}
"""Tiny frames spend their time in compilers and plans; results do not depend on these."""
QUICK_OVERRIDE = f"spark.settings={json.dumps(QUICK_SQL)}"
"""`QUICK_SQL` as it is given to `--set`."""
PRODUCTION = "ALLMREC_TEST_PRODUCTION"
"""Set in the environment, the shared session is as the program starts it: `make production`."""
REAL_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


# Two test processes and Spark's workers share the cores; a second torch thread would only wait for them.
# Before torch is imported, and inherited.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first.

    Beside the documents' commands another process runs all the rest (`make test` uses two).
    """
    steps = ("contract", "bad_input", "chaos", "nightly", "forget", "maintenance", "evaluate", "standalone")
    first = ["test_docs.py", *(f"test_{step}.py" for step in steps)]
    items.sort(key=lambda item: first.index(item.path.name) if item.path.name in first else len(first))


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one Spark session of the whole test run: two threads, few partitions."""
    from allmrec.config import SparkConfig
    from allmrec.spark.session import create_session

    is_quick, makes_archive = not os.environ.get(PRODUCTION), not ARCHIVE.exists()
    # It works long enough for the second compiler: nights take a fifth less than with the quick one alone.
    java = f"-XX:+UseSerialGC {RECORD if makes_archive else USE}"
    settings = {"spark.driver.extraJavaOptions": java, **QUICK_SQL} if is_quick else {}
    session = create_session(
        SparkConfig(master="local[2]", driver_memory="3g", shuffle_partitions=2, settings=settings),
        "allmrec-tests",
    )
    if is_quick and makes_archive:
        write_archive(session)
    yield session
    session.stop()


@pytest.fixture
def tables(spark: SparkSession, tmp_path: Path) -> Tables:
    """The tables below an empty folder."""
    from allmrec.tables.delta import Tables

    return Tables(spark, str(tmp_path / "tables"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, `../shared/data` beside the checkout."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}: it may not be redistributed")
    return REAL_DATA

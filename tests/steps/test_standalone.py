"""The same night on a Spark standalone cluster: a master and two workers, from `deploy/standalone`.

With the session's settings as the program has them (adaptive queries, code generation), which the other
tests' session does without.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from tests.conftest import SHORT_RUNS
from tests.steps.conftest import RUN_DATE, settings
from tests.steps.reading import comparable, rows

ROOT = Path(__file__).parents[2]
NIGHTLY = ("user_sequences", "candidates", "recommendations", "email_recommendations", "feed_recommendations")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[str]:
    """The URL of a running master with two workers of one core."""
    port = free_port()
    environment = {
        **os.environ,
        "RUN_FOLDER": str(tmp_path / "cluster"),
        "PORT": str(port),
        "UI_PORT": str(free_port()),
        "PYTHON": sys.executable,
    }
    try:
        subprocess.run(
            [str(ROOT / "deploy" / "standalone" / "start.sh")],
            env=environment,
            check=True,
            capture_output=True,
            timeout=120,
        )
        yield f"spark://127.0.0.1:{port}"
    finally:
        subprocess.run(
            [str(ROOT / "deploy" / "standalone" / "stop.sh")],
            env=environment,
            check=True,
            capture_output=True,
            timeout=120,
        )


def test_a_cluster_leaves_the_rows_that_local_mode_leaves(
    copy_of_shop: Path, shop: Path, spark: SparkSession, master: str
) -> None:
    for table in NIGHTLY:
        spark.sql(f"DELETE FROM delta.`{copy_of_shop / table}`")
    spark.sql(f"DELETE FROM delta.`{copy_of_shop / 'runs'}` WHERE step <> 'train'")
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "JAVA_TOOL_OPTIONS": SHORT_RUNS,
    }
    submit = [
        str(programs / "spark-submit"),
        "--properties-file",
        "conf/spark-defaults.conf",
        "--master",
        master,
    ]
    submit += ["--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.executor.memory=1g"]
    submit += ["--conf", f"spark.executor.extraJavaOptions={SHORT_RUNS}"]
    submit += ["jobs/nightly.py", "--run-date", str(RUN_DATE)]
    sets = [part for value in settings(copy_of_shop) for part in ("--set", value)]
    done = subprocess.run(
        [*submit, *sets], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for table in NIGHTLY:
        order = ["user_id", "rank"] if table == "recommendations" else ["user_id"]
        here, there = (
            rows(root, table, run_date=str(RUN_DATE)).sort_values(order, ignore_index=True)
            for root in (shop, copy_of_shop)
        )
        columns = [column for column in here.columns if column not in ("run_id", "scored_at")]
        assert len(here)
        pd.testing.assert_frame_equal(comparable(there[columns]), comparable(here[columns]), check_exact=True)

"""The same night on a Spark standalone cluster: a master and two workers, from `deploy/standalone`.

With the session's settings as the program has them (adaptive queries, code generation), which the other
tests' session does without.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
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


def one_gpu(folder: Path) -> list[str]:
    """Return the settings of a worker or executor that finds one GPU, which is none."""
    script = folder / "gpus.sh"
    script.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["0"]}'\n""")
    script.chmod(0o755)
    return ["amount=1", f"discoveryScript={script}"]


def stages(log: Path) -> Iterator[tuple[bool, int]]:
    """Yield whether a stage asked for a GPU, and its number of tasks, of every stage in Spark's event log."""
    with_gpu: dict[int, bool] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["Event"] == "SparkListenerResourceProfileAdded":
            with_gpu[event["Resource Profile Id"]] = "gpu" in event["Task Resource Requests"]
        if event["Event"] == "SparkListenerStageCompleted":
            stage = event["Stage Info"]
            yield with_gpu[stage["Resource Profile Id"]], stage["Number of Tasks"]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[str]:
    """The URL of a running master with two workers of one core and one GPU."""
    port = free_port()
    environment = {
        **os.environ,
        "RUN_FOLDER": str(tmp_path / "cluster"),
        "PORT": str(port),
        "UI_PORT": str(free_port()),
        "PYTHON": sys.executable,
        "SPARK_WORKER_OPTS": " ".join(f"-Dspark.worker.resource.gpu.{name}" for name in one_gpu(tmp_path)),
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


@pytest.mark.long
def test_a_cluster_leaves_the_rows_that_local_mode_leaves_and_the_llm_alone_asks_for_a_gpu(
    copy_of_shop: Path, shop: Path, spark: SparkSession, master: str, tmp_path: Path
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
    for setting in one_gpu(tmp_path):
        submit += ["--conf", f"spark.executor.resource.gpu.{setting}"]
    (tmp_path / "events").mkdir()
    for setting in ("enabled=true", f"dir={tmp_path / 'events'}", "compress=false", "rolling.enabled=false"):
        submit += ["--conf", f"spark.eventLog.{setting}"]
    submit += ["jobs/nightly.py", "--run-date", str(RUN_DATE)]
    on_cpu = ["llm.device=cpu"]  # the GPUs are simulated
    sets = [part for value in [*settings(copy_of_shop), *on_cpu] for part in ("--set", value)]
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
    [log] = (tmp_path / "events").iterdir()
    by_gpu = Counter[bool]()
    for asks, num_tasks in stages(log):
        by_gpu[asks] += num_tasks
    chunks = rows(copy_of_shop, "recommendations", run_date=str(RUN_DATE))
    num_users = chunks.loc[chunks["source"] == "llm", "user_id"].nunique()
    assert by_gpu[True] == -(-num_users // 16)  # a task for each chunk of the users that the LLM reads
    assert by_gpu[False] > by_gpu[True]

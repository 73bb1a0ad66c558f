"""What spark-submit is given wins over every setting of ours, but for those that rows depend on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from allmrec.config import SparkConfig
from allmrec.spark.java import use_java
from allmrec.spark.session import create_session
from tests.conftest import SHORT_RUNS

ROOT = Path(__file__).parents[2]
PRINT_SETTINGS = """
import json
import sys
from allmrec.config import SparkConfig
from allmrec.spark.session import create_session
ours = {"spark.sql.shuffle.partitions": "6", "spark.sql.files.maxPartitionBytes": "1048576"}
session = create_session(SparkConfig(master="local[2]", shuffle_partitions=5, settings=ours), "ours")
print(json.dumps({name: session.conf.get(name) for name in sys.argv[1:]}))
"""


def submitted(script: Path, conf: dict[str, str], names: list[str]) -> dict[str, str]:
    """Submit the script with `conf` over conf/spark-defaults.conf; return what its session has by `names`."""
    use_java()
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "JAVA_TOOL_OPTIONS": SHORT_RUNS,
    }
    submit = [str(programs / "spark-submit"), "--properties-file", str(ROOT / "conf" / "spark-defaults.conf")]
    submit += ["--master", "local[1]", "--driver-memory", "1g", "--name", "theirs"]
    submit += [part for name, value in conf.items() for part in ("--conf", f"{name}={value}")]
    done = subprocess.run(
        [*submit, str(script), *names],
        cwd=script.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    settings: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return settings


def test_what_is_submitted_wins_but_for_what_rows_depend_on(tmp_path: Path) -> None:
    script = tmp_path / "print_settings.py"
    script.write_text(PRINT_SETTINGS, encoding="utf-8")
    theirs = {
        "spark.sql.shuffle.partitions": "400",
        "spark.ui.enabled": "true",
        "spark.ui.port": "0",
        "spark.databricks.delta.snapshotPartitions": "50",
        "spark.executorEnv.TZ": "Asia/Tokyo",
    }
    forced = {
        "spark.sql.session.timeZone": "Asia/Tokyo",
        "spark.sql.ansi.enabled": "false",
        "spark.sql.parquet.outputTimestampType": "INT96",
    }
    expected = {
        **theirs,
        "spark.app.name": "theirs",
        "spark.master": "local[1]",
        # From the properties file, and then what nothing that was submitted names.
        "spark.driver.memory": "1g",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.files.maxPartitionBytes": "1048576",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }
    assert submitted(script, theirs | forced, list(expected)) == expected


def test_a_session_that_runs_gets_what_rows_depend_on_and_no_more(spark: SparkSession) -> None:
    shuffle_partitions = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    spark.conf.set("spark.sql.ansi.enabled", "false")
    again = create_session(SparkConfig(shuffle_partitions=77))
    assert again is spark
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"
    assert spark.conf.get("spark.sql.shuffle.partitions") == shuffle_partitions

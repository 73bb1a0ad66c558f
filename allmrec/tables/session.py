"""The Spark session, with Delta, UTC and ANSI mode."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from py4j.java_gateway import JavaClass, JavaGateway
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from allmrec.config import SparkConfig
from allmrec.errors import SetupError
from allmrec.tables.ended_jvm import say_it_once
from allmrec.tables.java import use_java
from allmrec.tables.secret_settings import keep_secret
from allmrec.tables.spark_log import causes, new_spark_log, remove_at_exit

DELTA_PACKAGE = "io.delta:delta-spark_2.13:4.0.1"
DELTA_VERSION = "4.0."
"""What the versions of Delta for Spark 4.0 begin with."""
_ROW_SETTINGS = {
    # Rows must not change with the machine's time zone, and a wrong cast must never become a silent null.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # The folder item_id=001 is the item 001: Spark would guess the number 1.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # Readers other than Spark want plain timestamps, not INT96.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
"""What rows depend on: every session has these, whatever else is configured."""
_DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # The default of 50 makes every small commit slow.
    "spark.databricks.delta.snapshotPartitions": "2",
    # Tasks are many and small, files need not be. Half a gigabyte, the default, would be one task's work.
    "spark.databricks.delta.optimizeWrite.binSize": "64m",
    "spark.executorEnv.TZ": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
}


def create_session(config: SparkConfig, app_name: str = "allmrec") -> SparkSession:
    """Return the running Spark session, or start one with Delta as the configuration says.

    Under `spark-submit` the JVM already runs: what was submitted (`--conf`, `--properties-file`) wins, and
    the configuration fills what that leaves open. Only what rows depend on (UTC, ANSI mode, plain timestamps)
    is always set.

    A JVM that is started here writes into the file `spark_log()`, and so do its Python workers. Raises
    SetupError where Java or Delta's JARs are missing, the JVM does not start, or there is none to be had:
    with Spark Connect.
    """
    if is_remote() or "SPARK_REMOTE" in os.environ:
        where = os.environ.get("SPARK_REMOTE", "chosen by the runtime")
        raise SetupError(
            f"Spark Connect ({where}): Delta's log, the file system and the models that are sent need the "
            "driver's JVM, which it does not give; expected a classic session: unset SPARK_REMOTE, use "
            "spark-submit, on Databricks a cluster with dedicated access"
        )
    # Spark takes Python's naive datetimes to be in the process's zone; in UTC they mean what the tables mean.
    os.environ["TZ"] = "UTC"
    time.tzset()
    say_it_once()
    keep_secret(config.settings.values())
    session = SparkSession.getActiveSession()
    if session is None:
        session = _start(config, app_name)
    for key, value in _ROW_SETTINGS.items():
        session.conf.set(key, value)
    if not isinstance(java_class(session, "io.delta.tables.DeltaTable"), JavaClass):
        raise SetupError(
            f"Spark runs without Delta: expected {DELTA_PACKAGE} on its class path; "
            "submit with --properties-file conf/spark-defaults.conf"
        )
    return session


def java_class(session: SparkSession, name: str) -> Any:
    """Return a class of the session's JVM by its full name; a package where there is no such class.

    By its full name at once: by attributes (`org.apache.…`) the JVM would look for a class of every
    package's name in all JARs, each time.
    """
    return getattr(session.sparkContext._jvm, name)


def _start(config: SparkConfig, app_name: str) -> SparkSession:
    """Start a session, and the JVM too where there is none yet."""
    is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if is_submitted:
        SparkContext._ensure_initialized()
        settings = settings_left_open(config, app_name, dict(SparkConf().getAll()))
    else:
        use_java()
        settings = _settings(config, app_name)
    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    if not is_submitted and SparkContext._gateway is None:
        SparkContext._ensure_initialized(gateway=_launch_jvm(conf))
    session = SparkSession.builder.config(conf=conf).getOrCreate()
    # What fails comes as an exception; stack traces say nothing more to a person. A cluster's log keeps them.
    session.sparkContext.setLogLevel("ERROR" if is_submitted else "FATAL")
    return session


def _launch_jvm(settings: SparkConf) -> JavaGateway:
    """Start a JVM that writes into a log. Raises SetupError, with the log's last words, where it fails."""
    log = new_spark_log()
    try:
        with log.open("ab") as output:
            gateway = launch_gateway(settings, {"stdout": output, "stderr": output})
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise SetupError(
            f"Spark's JVM did not start: most often {DELTA_PACKAGE} could not be fetched; name a mirror by "
            "`--set spark.settings` (spark.jars.repositories, spark.jars.ivySettings) "
            "or a folder of JARs by ALLMREC_JARS; "
            f"its last words (all are in {log}): {causes(log)}"
        ) from error
    remove_at_exit(log)
    return gateway


def settings_left_open(config: SparkConfig, app_name: str, submitted: Mapping[str, str]) -> dict[str, str]:
    """Return the session's settings that `submitted` does not name, and those that rows depend on."""
    settings = _settings_of_any_jvm(config, app_name)
    return {name: value for name, value in settings.items() if name not in submitted} | _ROW_SETTINGS


def _settings_of_any_jvm(config: SparkConfig, app_name: str) -> dict[str, str]:
    """Return the settings that also count in a JVM that already runs."""
    shuffle_partitions = {"spark.sql.shuffle.partitions": str(config.shuffle_partitions)}
    return {"spark.app.name": app_name, **_ROW_SETTINGS, **_DEFAULTS, **shuffle_partitions, **config.settings}


def _settings(config: SparkConfig, app_name: str) -> dict[str, str]:
    """Return the settings of a session whose JVM is started here.

    Raises SetupError where ALLMREC_JARS names a folder without Delta's JARs.
    """
    settings = _settings_of_any_jvm(config, app_name)
    master = config.master or os.environ.get("MASTER") or "local[*]"
    settings["spark.master"] = master
    settings["spark.driver.memory"] = config.driver_memory
    # The bar would go into the log; commands show progress of their own.
    settings["spark.ui.showConsoleProgress"] = "false"
    # Tables here have paths of their own; Spark's catalogue would leave an empty folder in the current one.
    settings["spark.sql.warehouse.dir"] = str(Path(tempfile.gettempdir()) / "spark-warehouse")
    if master.startswith("local"):
        # A laptop's host name often resolves to nothing, or to an address of another network.
        settings.update({"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"})
    settings.update(config.settings)
    settings.update(_delta_jars(settings))
    return settings


def _delta_jars(settings: dict[str, str]) -> dict[str, str]:
    """Return the setting that puts Delta on the class path: its package, or the JARs in ALLMREC_JARS.

    Raises SetupError where that folder lacks one of them.
    """
    folder = os.environ.get("ALLMREC_JARS")
    if folder is None:
        packages = _listed(settings, "spark.jars.packages")
        if not any(":delta-spark_" in package for package in packages):
            packages.append(DELTA_PACKAGE)
        return {"spark.jars.packages": ",".join(packages)}
    jars = sorted(str(jar.resolve()) for jar in Path(folder).glob("*.jar"))
    for needed in ("delta-spark_2.13", "delta-storage"):
        _check_jar(folder, needed, [Path(jar).name for jar in jars])
    return {"spark.jars": ",".join([*_listed(settings, "spark.jars"), *jars])}


def _check_jar(folder: str, needed: str, names: list[str]) -> None:
    """Raise SetupError if the folder has no JAR of that name, or another version than Spark 4.0 takes.

    Maven calls it `delta-storage-4.0.1.jar`, Ivy's own folder `io.delta_delta-storage-4.0.1.jar`.
    """
    version_of = re.compile(rf"(?:.*_)?{re.escape(needed)}-(\d.*)\.jar")
    found = {name: match.group(1) for name in names if (match := version_of.fullmatch(name))}
    wrong = [name for name, version in found.items() if not version.startswith(DELTA_VERSION)]
    if not found or wrong:
        holds = f"holds {', '.join(wrong)}, expected" if wrong else "holds no"
        raise SetupError(
            f"ALLMREC_JARS={folder}: {holds} {needed}-{DELTA_VERSION}x.jar; "
            f"put the JARs of {DELTA_PACKAGE} there, and no others of Delta, or unset it"
        )


def _listed(settings: dict[str, str], key: str) -> list[str]:
    """Return the parts of a setting that lists names with commas; none where it is not set."""
    return [name for name in settings.get(key, "").split(",") if name]

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
from allmrec.spark import python_daemon
from allmrec.spark.java import use_java
from allmrec.spark.quiet import say_it_once
from allmrec.spark.secret_settings import keep_secret
from allmrec.spark.spark_log import causes, new_spark_log, remove_at_exit

DELTA_PACKAGE = "io.delta:delta-spark_2.13:4.0.1"
DELTA_VERSION = "4.0."
"""How every version of Delta for Spark 4.0 begins."""
_ROW_SETTINGS = {
    # Rows must not depend on the machine's time zone. A wrong cast must raise, not give null.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # The folder item_id=001 is the item 001; Spark would infer the number 1.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # Readers other than Spark need plain timestamps, not INT96.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
"""Settings that decide rows. Every session has them, whatever else is configured."""
SCORING = "allmrec.runtime.workers"
"""The module with all that scoring imports. Workers have it from the start if this process has torch."""
_DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # The default of 50 makes every small commit slow.
    "spark.databricks.delta.snapshotPartitions": "2",
    # Half a gigabyte, the default, would be the work of one task.
    "spark.databricks.delta.optimizeWrite.binSize": "64m",
    "spark.executorEnv.TZ": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
}


def create_session(config: SparkConfig, app_name: str = "allmrec") -> SparkSession:
    """Return the running Spark session, or start one with Delta as configured.

    Under `spark-submit` the JVM already runs: submitted settings (`--conf`, `--properties-file`) win, and the
    configuration adds the others. Only the settings that decide rows (UTC, ANSI mode, plain timestamps) are
    always set.

    A JVM that is started here writes into the file `spark_log()`, and so do its Python workers. Raises
    SetupError where Java or Delta's JARs are missing, the JVM does not start, or the session is one of Spark
    Connect.
    """
    if is_remote() or "SPARK_REMOTE" in os.environ:
        where = os.environ.get("SPARK_REMOTE", "chosen by the runtime")
        raise SetupError(
            f"Spark Connect ({where}): Delta's log, the file system and the models that are sent need the "
            "driver's JVM, which it does not give; expected a classic session: unset SPARK_REMOTE, use "
            "spark-submit, on Databricks a cluster with dedicated access"
        )
    # Spark reads Python's naive datetimes in the process's zone, which therefore must be UTC.
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
    """Return a class (or package) of the JVM by its full name.

    The full name is one call. With attributes (`org.apache.…`) the JVM would search all JARs for every part
    of it.
    """
    return getattr(session.sparkContext._jvm, name)


def _start(config: SparkConfig, app_name: str) -> SparkSession:
    """Start a session, and the JVM too if none runs."""
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
    # Failures are raised as exceptions, so that stack traces add nothing here. A cluster's log keeps them.
    session.sparkContext.setLogLevel("ERROR" if is_submitted else "FATAL")
    return session


def _launch_jvm(settings: SparkConf) -> JavaGateway:
    """Start a JVM that writes into a log. Raises SetupError with the log's end where it fails."""
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
    """Return the settings that `submitted` lacks, and those that decide rows."""
    settings = _settings_of_any_jvm(config, app_name)
    return {name: value for name, value in settings.items() if name not in submitted} | _ROW_SETTINGS


def _settings_of_any_jvm(config: SparkConfig, app_name: str) -> dict[str, str]:
    """Return the settings that also apply in a JVM that already runs."""
    shuffle_partitions = {"spark.sql.shuffle.partitions": str(config.shuffle_partitions)}
    return {"spark.app.name": app_name, **_ROW_SETTINGS, **_DEFAULTS, **shuffle_partitions, **config.settings}


def _settings(config: SparkConfig, app_name: str) -> dict[str, str]:
    """Return the settings of a session whose JVM is started here.

    Raises SetupError where ALLMREC_JARS is a folder without Delta's JARs.
    """
    settings = _settings_of_any_jvm(config, app_name)
    master = config.master or os.environ.get("MASTER") or "local[*]"
    settings["spark.master"] = master
    settings["spark.driver.memory"] = config.driver_memory
    # Commands show their own progress. Spark's bar would go into the log.
    settings["spark.ui.showConsoleProgress"] = "false"
    # Tables have paths of their own. Spark would create an empty warehouse in the current folder.
    settings["spark.sql.warehouse.dir"] = str(Path(tempfile.gettempdir()) / "spark-warehouse")
    if master.startswith("local"):
        # A laptop's host name often has no address, or one of another network.
        settings.update({"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"})
        # Workers run in this Python, which has the package; an executor's Python may get it later.
        settings["spark.python.daemon.module"] = python_daemon.MODULE
        if "torch" in sys.modules:
            settings[f"spark.executorEnv.{python_daemon.PRELOADED}"] = SCORING
    settings.update(config.settings)
    settings.update(_delta_jars(settings))
    return settings


def _delta_jars(settings: dict[str, str]) -> dict[str, str]:
    """Return the setting that adds Delta to the class path.

    Raises SetupError where the folder lacks one of the JARs.
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
    """Raise SetupError where the JAR is missing or of a wrong version.

    Maven names it `delta-storage-4.0.1.jar`, Ivy's own folder `io.delta_delta-storage-4.0.1.jar`.
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
    """Return the names in a setting that lists them with commas. Empty if it is not set."""
    return [name for name in settings.get(key, "").split(",") if name]

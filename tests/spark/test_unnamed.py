"""Real errors of Spark's without a name here: only what passes by itself has exit code 4."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from allmrec.errors import UserError
from allmrec.spark.troubles import as_user_error

Attempt = Callable[[SparkSession, Path], Any]


def parquet(folder: Path, name: str, values: Any) -> None:
    """Write a Parquet file with the column `a`."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"a": values}), folder / name, version="2.6")


def of_two_types(spark: SparkSession, folder: Path) -> Any:
    parquet(folder / "mixed", "1.parquet", pa.array([1]))
    parquet(folder / "mixed", "2.parquet", pa.array(["x"]))
    return spark.read.schema("a long").parquet(str(folder / "mixed")).collect()


def with_nanoseconds(spark: SparkSession, folder: Path) -> Any:
    parquet(folder / "fine", "1.parquet", pa.array([1], pa.timestamp("ns")))
    return spark.read.parquet(str(folder / "fine")).collect()


def with_a_damaged_page(spark: SparkSession, folder: Path) -> Any:
    parquet(folder / "damaged", "1.parquet", pa.array([1]))
    data = bytearray((folder / "damaged" / "1.parquet").read_bytes())
    data[8:20] = b"\xff" * 12
    (folder / "damaged" / "1.parquet").write_bytes(data)
    return spark.read.schema("a long").parquet(str(folder / "damaged")).collect()


def half_of_an_archive(spark: SparkSession, folder: Path) -> Any:
    data = gzip.compress(b"a,b\n" * 10000)
    (folder / "half.csv.gz").write_bytes(data[: len(data) // 2])
    return spark.read.text(str(folder / "half.csv.gz")).collect()


def no_archive(spark: SparkSession, folder: Path) -> Any:
    (folder / "text.csv.gz").write_bytes(b"not gzip at all")
    return spark.read.text(str(folder / "text.csv.gz")).collect()


def below_a_file(spark: SparkSession, folder: Path) -> Any:
    (folder / "file").touch()
    return spark.range(3).write.parquet(str(folder / "file" / "below"))


def not_of_delta(spark: SparkSession, folder: Path) -> Any:
    parquet(folder / "plain", "1.parquet", pa.array([1]))
    return spark.read.format("delta").load(str(folder / "plain")).collect()


def of_another_type_for_delta(spark: SparkSession, folder: Path) -> Any:
    spark.range(3).write.format("delta").save(str(folder / "delta"))
    rows = spark.range(3).select(F.col("id").cast("string"))
    return rows.write.format("delta").mode("append").save(str(folder / "delta"))


def in_a_worker(error: BaseException | None) -> Attempt:
    """Return the attempt to work in a Python worker that raises `error`, or is killed."""

    def work(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        if error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise error
        yield from frames

    return lambda spark, folder: spark.range(3).mapInPandas(work, "id long").collect()


PERMANENT: dict[str, tuple[int, str, Attempt]] = {
    "no such path": (3, "[PATH_NOT_FOUND]", lambda spark, at: spark.read.parquet(f"{at}/none")),
    "no such path of Delta": (
        3,
        "PATH_NOT_FOUND",
        lambda spark, at: spark.read.format("delta").load(f"{at}/no"),
    ),
    "no such table": (3, "`no`.`table`", lambda spark, at: spark.table("no.table")),
    "no such column": (3, "`idd`", lambda spark, at: spark.range(3).where("idd = 3")),
    "ambiguous columns": (3, "`a`", lambda spark, at: spark.range(1).selectExpr("id a", "id A").select("a")),
    "bad SQL": (3, "[PARSE_SYNTAX_ERROR]", lambda spark, at: spark.range(3).where("id === 3")),
    "bad schema": (3, "[PARSE_SYNTAX_ERROR]", lambda spark, at: spark.read.schema(", a string")),
    "bad cast": (3, "'x'", lambda spark, at: spark.range(1).select(F.lit("x").cast("int")).collect()),
    "division by zero": (
        3,
        "[DIVIDE_BY_ZERO]",
        lambda spark, at: spark.range(1).selectExpr("1/id").collect(),
    ),
    "bad pattern": (3, "qqqq", lambda spark, at: spark.sql("SELECT to_timestamp('x', 'qqqq')").collect()),
    "end of the calendar": (
        3,
        "IllegalArgument",
        lambda spark, at: spark.range(1).select(F.lit(date(1, 1, 1))),
    ),
    "types of two files": (3, "mixed/2.parquet", of_two_types),
    "nanoseconds": (3, "TIMESTAMP(NANOS", with_nanoseconds),
    "a damaged page": (3, "damaged/1.parquet", with_a_damaged_page),
    "half of an archive": (3, "half.csv.gz", half_of_an_archive),
    "no archive": (3, "not a gzip file", no_archive),
    "no Delta table": (3, "plain", not_of_delta),
    "a type of Delta's": (3, "[DELTA_FAILED_TO_MERGE_FIELDS]", of_another_type_for_delta),
    "a folder below a file": (3, "not a directory", below_a_file),
    "a missing format": (3, "iceberg", lambda spark, at: spark.read.format("iceberg").load(str(at))),
    "a missing class": (2, "a.b.C", lambda spark, at: spark.sql("CREATE TEMPORARY FUNCTION f AS 'a.b.C'")),
    "a missing file system": (2, '"s9"', lambda spark, at: spark.read.parquet("s9://bucket/x")),
    "a bad setting": (
        3,
        "should be int",
        lambda spark, at: spark.conf.set("spark.sql.shuffle.partitions", "x"),
    ),
    "a fixed setting": (
        2,
        "spark.executor.cores",
        lambda spark, at: spark.conf.set("spark.executor.cores", 1),
    ),
}
PASSING: dict[str, tuple[str, Attempt]] = {
    "a killed worker": ("Python worker exited unexpectedly", in_a_worker(None)),
    "a worker without memory": ("MemoryError: cannot hold it", in_a_worker(MemoryError("cannot hold it"))),
}


def failed(attempt: Attempt, spark: SparkSession, folder: Path) -> UserError | None:
    """Return the user's error of an attempt that fails."""
    with pytest.raises((PySparkException, Py4JError)) as found:
        attempt(spark, folder)
    return as_user_error(found.value)


@pytest.mark.parametrize("name", PERMANENT)
def test_what_can_never_pass_has_another_exit_code_than_what_passes(
    name: str, spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, words, attempt = PERMANENT[name]
    error = failed(attempt, spark, tmp_path)
    assert error is not None
    assert error.exit_code == code
    assert words in str(error)
    assert "\n" not in str(error)
    assert "run the same command again" not in str(error)
    assert capfd.readouterr().err == "", "an error of Spark's is one line of ours"


@pytest.mark.parametrize("name", PASSING)
def test_a_lost_process_passes(name: str, spark: SparkSession, tmp_path: Path) -> None:
    words, attempt = PASSING[name]
    error = failed(attempt, spark, tmp_path)
    assert error is not None
    assert error.exit_code == 4
    assert words in str(error)
    assert "\n" not in str(error)


def test_a_defect_in_a_worker_is_a_defect(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(PySparkException, match="KeyError: 'a defect'") as found:
        in_a_worker(KeyError("a defect"))(spark, tmp_path)
    assert as_user_error(found.value) is None


def test_a_worker_without_a_package_is_a_matter_of_the_set_up(spark: SparkSession, tmp_path: Path) -> None:
    error = failed(in_a_worker(ModuleNotFoundError("No module named 'allmrec'")), spark, tmp_path)
    assert error is not None
    assert error.exit_code == 2
    assert "PYSPARK_PYTHON: ModuleNotFoundError: No module named 'allmrec'" in str(error)


def test_a_job_that_somebody_cancelled_passes(spark: SparkSession, tmp_path: Path) -> None:
    def cancelled(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        (tmp_path / "begun").touch()
        signal.pause()
        yield from frames

    def cancel() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        spark.sparkContext.cancelAllJobs()

    thread = threading.Thread(target=cancel)
    thread.start()
    error = failed(
        lambda spark, _: spark.range(1).mapInPandas(cancelled, "id long").collect(), spark, tmp_path
    )
    thread.join()
    assert error is not None
    assert error.exit_code == 4


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x (08001) SQLSTATE: 08001", 4),
        ("[SOMETHING_NEW] y SQLSTATE: 42ZZZ", 3),
        ("[SOMETHING_NEW] y SQLSTATE: 22ZZZ", 3),
        ("[SOMETHING_NEW] y SQLSTATE: 0A000", 3),
        ("[SOMETHING_NEW] y SQLSTATE: 54000", 3),
        ("[SOMETHING_NEW] a value 'Connection refused' SQLSTATE: 22018", 3),
        ("[FAILED_READ_FILE.NO_HINT] file x SQLSTATE: KD001\nCaused by: java.io.IOException: bad header", 3),
        ("[FAILED_READ_FILE.NO_HINT] x SQLSTATE: KD001\nCaused by: java.net.SocketTimeoutException: Read", 4),
        ("org.apache.spark.SparkException: Job aborted: ExecutorLostFailure (executor 1 exited)", 4),
        ("org.apache.hadoop.hive.MetaException: Could not connect: java.net.ConnectException", 4),
        ("java.lang.NoClassDefFoundError: org/apache/hadoop/fs/s3a/S3AFileSystem", 2),
        ("Caused by: java.lang.ClassNotFoundException: com.example.Driver", 2),
        ("com.amazonaws.services.s3.model.AmazonS3Exception: Forbidden (Status Code: 403)", 2),
        ("java.io.IOException: Too many open files", 4),
        ("java.lang.OutOfMemoryError: Java heap space", 4),
    ],
)
def test_an_error_is_judged_by_its_state_and_its_causes(text: str, code: int) -> None:
    error = as_user_error(PySparkException(text))
    assert error is not None
    assert error.exit_code == code


def test_a_message_is_never_empty() -> None:
    for error in (PySparkException(""), PySparkException("\n"), Py4JError(""), OSError()):
        told = as_user_error(error)
        assert told is not None
        assert type(error).__name__ in str(told)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/x"), 3, "/data/x: No such file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/data/x"), 3, "/data/x: Is a directory"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/data/x"), 3, "/data/x: Not a directory"),
        (FileExistsError(errno.EEXIST, "File exists", "/data/x"), 3, "/data/x: File exists"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/data/x"), 3, "/data/x: File name too long"),
        (OSError("no tokenizer\nin that folder"), 2, "no tokenizer in that folder"),
        (OSError("We couldn't connect to the hub"), 4, "couldn't connect"),
        (OSError(errno.EIO, "Input/output error", "/data/x"), 4, "/data/x: Input/output error"),
        (OSError(errno.EMFILE, "Too many open files"), 4, "Too many open files"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), 4, "No space left on the disk (/data/x)"),
    ],
)
def test_a_path_that_is_wrong_does_not_pass(error: OSError, code: int, words: str) -> None:
    told = as_user_error(error)
    assert told is not None
    assert told.exit_code == code
    assert words in str(told)
    assert "\n" not in str(told)

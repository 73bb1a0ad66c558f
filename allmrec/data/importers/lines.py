"""Text files read line by line in Spark, compressed or not: JSON lines and CSV, every value as text, every bad line with its reason.

Nothing is inferred: ids such as `00123` and numbers keep their literal text. A quoted CSV value may not hold a line break.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.errors import InputError
from allmrec.tables import filesystem

CORRUPT = "_corrupt_record"


def require(spark: SparkSession, path: str) -> str:
    """Return `path`. Raises InputError where nothing is there."""
    if not filesystem.exists(spark, path):
        raise InputError(f"{path}: no such file or folder; check the path")
    return path


def read_lines(spark: SparkSession, path: str, latin: bool = False) -> DataFrame:
    """Return (value, problem) a line that is not blank: `not_utf8` and `nul_character` are told, not read.

    With `latin`, lines that are not UTF-8 are read as ISO 8859-1, as MovieLens writes them.
    """
    lines = spark.read.text(require(spark, path))
    value = F.col("value")
    if latin:
        value = F.when(F.is_valid_utf8(value), value).otherwise(F.decode(value.cast("binary"), "ISO-8859-1"))
    problem = F.when(~F.is_valid_utf8(value), "not_utf8").when(
        F.contains(value, F.lit("\u0000")), "nul_character"
    )
    lines = lines.select(problem.alias("problem"), F.make_valid_utf8(value).alias("value"))
    # Windows line ends and the byte order mark belong to the file, not to its values.
    lines = lines.withColumn("value", F.regexp_replace("value", "^\ufeff|\r$", ""))
    return lines.where(F.trim("value") != "")


def first_line(spark: SparkSession, path: str) -> str:
    """Return the file's first line that is not blank. Raises InputError where there is none or it cannot be read."""
    with reading(path):
        row = read_lines(spark, path).select("value").first()
    if row is None:
        raise InputError(f"{path}: holds no line, expected at least one")
    return str(row["value"])


def parse_json(lines: DataFrame, columns: tuple[str, ...]) -> DataFrame:
    """Return `columns` as text (numbers, arrays and objects as their JSON), `raw` and `problem` (`not_json` for other lines)."""
    return _parsed(
        lines,
        F.from_json(F.col("value"), _texts(columns), {"columnNameOfCorruptRecord": CORRUPT}),
        columns,
        "not_json",
        is_json=True,
    )


def parse_csv(lines: DataFrame, header: str, columns: tuple[str, ...], separator: str = ",") -> DataFrame:
    """Return `columns` as text, `raw` (as JSON) and `problem` (`not_csv` for lines with another number of values); `header` lines are left out."""
    options = {"sep": separator, "escape": '"', "columnNameOfCorruptRecord": CORRUPT}
    # A line with an error in its bytes may still be split; one with a zero byte is told as it is.
    lines = lines.where(F.col("value") != F.lit(header))
    return _parsed(
        lines,
        F.from_csv(F.col("value"), _texts(columns).simpleString(), options),
        columns,
        "not_csv",
        is_json=False,
    )


def line_as_json(value: Column) -> Column:
    """Return a line that is no JSON as a JSON object."""
    return F.to_json(F.struct(value.alias("line")))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn Spark's failure to read a file to its end, in the block, into an InputError that names the file (`what`, where Spark does not)."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        told = str(error)
        if "FAILED_READ_FILE" not in told and "EOFException" not in told:
            raise
        raise _unreadable(told, what) from error


def _unreadable(told: str, fallback: str) -> InputError:
    marker = "reading file "
    name = told.split(marker, 1)[1].split()[0].rstrip(".") if marker in told else fallback
    signs = ("EOFException", "Unexpected end", "ZipException", "ZLIB", "not a gzip", "incorrect")
    reason = (
        "it ends in the middle (truncated or damaged archive)"
        if any(sign in told for sign in signs)
        else told.splitlines()[0][:300]
    )
    return InputError(
        f"{name.removeprefix('file://')}: cannot be read to its end: {reason}; fetch it again, nothing was imported"
    )


def _texts(columns: tuple[str, ...]) -> T.StructType:
    return T.StructType([T.StructField(name, T.StringType()) for name in (*columns, CORRUPT)])


def _parsed(
    lines: DataFrame, parser: Column, columns: tuple[str, ...], reason: str, is_json: bool
) -> DataFrame:
    rows = lines.withColumn("_row", parser)
    broken = F.col("_row").isNull() | F.col("_row")[CORRUPT].isNotNull()
    problem = F.coalesce(F.col("problem"), F.when(broken, reason))
    values = [F.when(F.col("problem").isNull(), F.col("_row")[name]).alias(name) for name in columns]
    rows = rows.withColumn("problem", problem)
    whole = (
        F.col("value")
        if is_json
        else F.to_json(
            F.struct(*(F.col("_row")[name].alias(name) for name in columns)), {"ignoreNullFields": "false"}
        )
    )
    raw = F.when(F.col("problem").isNull(), whole).otherwise(line_as_json(F.col("value")))
    return rows.select(*values, raw.alias("raw"), "problem")

"""Text files read line by line in Spark, compressed or not: JSON lines and CSV.

Every value is a text and nothing is inferred, so that ids such as `00123` and numbers keep their literal
form. Every bad line has its reason. A quoted CSV value may not hold a line break.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.data.columns import json_object
from allmrec.errors import InputError
from allmrec.tables import filesystem

CORRUPT = "_corrupt_record"
_SIGNS_OF_DAMAGE = ("EOFException", "Unexpected end", "ZipException", "ZLIB", "not a gzip", "incorrect")
"""What Spark's message holds where a compressed file is cut off or damaged."""


def require(spark: SparkSession, path: str) -> str:
    """Return `path`. Raises InputError where nothing is there."""
    if not filesystem.exists(spark, path):
        raise InputError(f"{path}: no such file or folder; check the path")
    return path


def read_lines(spark: SparkSession, path: str, latin: bool = False) -> DataFrame:
    """Return one row (value, problem) per line that is not blank.

    `problem` is `not_utf8`, `nul_character`, or null. With `latin`, lines that are not UTF-8 are read as ISO
    8859-1, as MovieLens writes them. Raises InputError where there is no such file.
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
    """Return the file's first line that is not blank.

    Raises InputError where there is none or it cannot be read.
    """
    with reading(path):
        row = read_lines(spark, path).select("value").first()
    if row is None:
        raise InputError(f"{path}: holds no line, expected at least one")
    return str(row["value"])


def parse_json(lines: DataFrame, columns: tuple[str, ...]) -> DataFrame:
    """Return `columns` as text (numbers, arrays and objects as their JSON), `raw` (the line) and `problem`.

    `problem` is that of `read_lines`, or `not_json`: such a line has no values.
    """
    options = {"columnNameOfCorruptRecord": CORRUPT}
    parsed = F.from_json(F.col("value"), _text_fields(columns), options)
    return _parsed(lines, parsed, columns, "not_json", raw=F.col("value"))


def parse_csv(lines: DataFrame, header: str, columns: tuple[str, ...], separator: str = ",") -> DataFrame:
    """Return `columns` as text, `raw` (as JSON) and `problem`; lines that equal `header` are left out.

    `problem` is that of `read_lines`, or `not_csv` for a line with another number of values: such a line has
    no values.
    """
    options = {"sep": separator, "escape": '"', "columnNameOfCorruptRecord": CORRUPT}
    parsed = F.from_csv(F.col("value"), _text_fields(columns).simpleString(), options)
    raw = json_object(*(F.col("_parsed")[name].alias(name) for name in columns))
    return _parsed(lines.where(F.col("value") != F.lit(header)), parsed, columns, "not_csv", raw)


def line_as_json(value: Column) -> Column:
    """Return a line that is no JSON as a JSON object."""
    return F.to_json(F.struct(value.alias("line")))


@contextmanager
def reading(description: str) -> Iterator[None]:
    """Turn Spark's failure to read a file to its end, in the block, into an InputError that names the file.

    Where Spark's message does not name it, `description` does. Raises InputError for such a failure; other
    errors of Spark pass through.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        message = str(error)
        if "FAILED_READ_FILE" not in message and "EOFException" not in message:
            raise
        raise _unreadable(message, description) from error


def _unreadable(message: str, description: str) -> InputError:
    marker = "reading file "
    name = message.split(marker, 1)[1].split()[0].rstrip(".") if marker in message else description
    reason = (
        "it ends in the middle (truncated or damaged archive)"
        if any(sign in message for sign in _SIGNS_OF_DAMAGE)
        else message.splitlines()[0][:300]
    )
    return InputError(
        f"{name.removeprefix('file://')}: cannot be read to its end: {reason}; "
        "fetch it again, nothing was imported"
    )


def _text_fields(columns: tuple[str, ...]) -> T.StructType:
    """Return the schema of a parsed line: every column a text, and one for a line that cannot be parsed."""
    return T.StructType([T.StructField(name, T.StringType()) for name in (*columns, CORRUPT)])


def _parsed(
    lines: DataFrame, parsed: Column, columns: tuple[str, ...], reason: str, raw: Column
) -> DataFrame:
    """Return the fields of `parsed`, `raw` (the line where it is not parsed) and `problem`.

    `raw` may refer to the columns `value` and `_parsed`; `reason` is the problem of lines that cannot be
    parsed.
    """
    rows = lines.withColumn("_parsed", parsed)
    is_broken = F.col("_parsed").isNull() | F.col("_parsed")[CORRUPT].isNotNull()
    rows = rows.withColumn("problem", F.coalesce(F.col("problem"), F.when(is_broken, reason)))
    is_whole = F.col("problem").isNull()
    values = [F.when(is_whole, F.col("_parsed")[name]).alias(name) for name in columns]
    raw = F.when(is_whole, raw).otherwise(line_as_json(F.col("value")))
    return rows.select(*values, raw.alias("raw"), "problem")

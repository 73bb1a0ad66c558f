"""Records of CSV files as a Spark frame.

Spark's own parser reads files whose lines are all simple; Python reads the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.data.files.dialect import CsvForm
from allmrec.data.files.found import FoundFile
from allmrec.data.files.lines import Row, in_order, lines_of, mapped, numbered
from allmrec.data.files.records import Dialect, records

_CORRUPT = "_corrupt_record"


def csv_rows(spark: SparkSession, files: list[FoundFile], form: CsvForm, keeps_path: bool) -> DataFrame:
    """Return c0, c1, … (the values), problem (the fault), line and _file.

    `line` is the text of a record with a problem. Both parsers agree on simple lines (`Dialect.is_simple`);
    Spark's is several times as fast. An empty value is null. With `keeps_path` _file is the path of the
    record's file.
    """
    lines = lines_of(spark, files)
    if form.is_simple and (all(file.is_whole for file in files) or _are_simple(lines, form.dialect)):
        return _of_simple_lines(lines, form)
    return _of_records(in_order(lines, files), form, keeps_path)


def _are_simple(lines: DataFrame, dialect: Dialect) -> bool:
    """Return whether every line can be read by itself, in one pass."""
    if not dialect.quote:
        return True
    has_quote = F.contains("value", F.lit(dialect.quote))
    return lines.where(has_quote & ~F.col("value").rlike(f"^(?:{dialect.simple_pattern()})$")).isEmpty()


def _of_simple_lines(lines: DataFrame, form: CsvForm) -> DataFrame:
    """Return the columns of simple lines, which Spark's parser reads."""
    value = F.col("value")
    problem = F.when(~F.is_valid_utf8(value), "not_utf8").when(
        F.contains(value, F.lit("\0")), "nul_character"
    )
    lines = lines.select(problem.alias("problem"), F.make_valid_utf8(value).alias("line"), "_file")
    line = F.col("line")
    line = F.when(line.startswith("\ufeff"), F.substring(line, 2, 1 << 30)).otherwise(line)
    lines = lines.withColumn("line", line).where(F.trim("line") != "")
    if form.header is not None:
        lines = lines.where(F.col("line") != F.lit(form.header_line))
    columns = numbered(form.names)
    schema = ", ".join(f"{name} string" for name in (*columns, _CORRUPT))
    options = {
        "sep": form.dialect.separator,
        "quote": form.dialect.quote,
        "escape": '"' if form.dialect.quote else "\0",
        "columnNameOfCorruptRecord": _CORRUPT,
    }
    parsed = lines.withColumn("_parsed", F.from_csv("line", F.lit(schema), options))
    is_broken = F.col("_parsed").isNull() | F.col("_parsed")[_CORRUPT].isNotNull()
    parsed = parsed.withColumn("problem", F.coalesce("problem", F.when(is_broken, "not_csv")))
    is_whole = F.col("problem").isNull()
    values = [F.nullif(F.when(is_whole, F.col("_parsed")[name]), F.lit("")).alias(name) for name in columns]
    return parsed.select(*values, "problem", "line", "_file")


def _of_records(lines: DataFrame, form: CsvForm, keeps_path: bool) -> DataFrame:
    """Return the same columns of lines whose records may span several lines."""
    width = len(form.names)
    header = None if form.header is None else list(form.header)
    dialect = form.dialect

    def of_file(file: str, lines: Iterable[bytes]) -> Iterator[Row]:
        texts = (line.decode("utf-8", "surrogateescape").removeprefix("\ufeff") for line in lines)
        for record in records(texts, dialect, width):
            if record.fields is None:
                yield (*[None] * width, record.problem, record.text, file)
            elif record.fields != header:
                yield (*(field or None for field in record.fields), None, None, file)

    return mapped(lines, of_file, [*numbered(form.names), "problem", "line", "_file"], keeps_path)

"""Lines of text files as a Spark frame, mapped by Python workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import groupby

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.data.files.found import FoundFile
from allmrec.spark.literal_paths import literal

SPLIT_BYTES = 4 << 20
"""Spark reads a smaller file in one task (`spark.sql.files.openCostInBytes`)."""
_BATCH = 10_000
Row = tuple[str | None, ...]
"""A worker's row of texts."""


def lines_of(spark: SparkSession, files: list[FoundFile], separator: str | None = None) -> DataFrame:
    """Return (value, _file, _start) of every line: text, path, and place.

    `_start` is the first byte of the part of the file that a task reads. `separator` ends a line in place of
    a line break.
    """
    reader = spark.read if separator is None else spark.read.option("lineSep", separator)
    lines = reader.text([literal(file.uri) for file in files])
    return lines.select(
        "value",
        F.col("_metadata.file_path").alias("_file"),
        F.col("_metadata.file_block_start").alias("_start"),
    )


def in_order(lines: DataFrame, files: list[FoundFile]) -> DataFrame:
    """Return the lines, each file's in order in one task."""
    if not any(file.length > SPLIT_BYTES and file.form.compression != "gzip" for file in files):
        return lines
    lines = lines.withColumn("_number", F.monotonically_increasing_id())
    return lines.repartition("_file").sortWithinPartitions("_file", "_start", "_number")


def mapped(
    lines: DataFrame,
    of_file: Callable[[str, Iterable[bytes]], Iterator[Row]],
    columns: list[str],
    keeps_path: bool,
) -> DataFrame:
    """Return the rows that `of_file` makes of each file's lines.

    Its first argument is the file's path with `keeps_path`, else a hash of the path, which has fewer bytes.
    """
    file = F.col("_file") if keeps_path else F.xxhash64("_file").cast("string")
    sent = lines.select(F.col("value").cast("binary").alias("value"), file.alias("_file"))

    def parsed(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        return _batches(batches, len(columns), of_file)

    return sent.mapInArrow(parsed, ", ".join(f"{name} string" for name in columns))


def _batches(
    batches: Iterable[pa.RecordBatch],
    num_columns: int,
    of_file: Callable[[str, Iterable[bytes]], Iterator[Row]],
) -> Iterator[pa.RecordBatch]:
    """Yield in batches the rows of `of_file` for each file."""

    def lines() -> Iterator[tuple[bytes, str]]:
        for batch in batches:
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    rows: list[Row] = []
    for file, group in groupby(lines(), key=lambda line: line[1]):
        for row in of_file(file, (value for value, _ in group)):
            rows.append(row)
            if len(rows) == _BATCH:
                yield _batch(rows, num_columns)
                rows = []
    if rows:
        yield _batch(rows, num_columns)


def _batch(rows: list[Row], num_columns: int) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(num_columns)])


def numbered(names: Sized) -> list[str]:
    """Return c0, c1, …, one for each name."""
    return [f"c{number}" for number in range(len(names))]

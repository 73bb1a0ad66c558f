"""Rows as one local file: CSV, JSON lines or Parquet.

The rows come as Arrow batches, one after another, so that memory does not grow with their number.
"""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a text that a spreadsheet may run as a formula."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def write_file(path: Path, form: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write the batches as the file `path` in one of `FORMS`. Return their number of rows.

    A file of this name is replaced once the new one is complete. Raises OSError where it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with unfinished.open("xb") as file:
            num_rows = FORMS[form](file, schema, batches)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return num_rows


def batches_of(frame: DataFrame) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return a frame's schema and its rows in batches, in order.

    The driver holds one partition at a time.
    """
    encoded = frame.mapInArrow(_encoded, "batch binary").toLocalIterator()
    batches = (batch for row in encoded for batch in pa.ipc.open_stream(row["batch"]))
    first = next(batches, None)
    if first is None:
        return to_arrow_schema(frame.schema), iter(())
    return first.schema, _chained(first, batches)


def as_cell(value: str | None) -> str | None:
    """Return a text that no spreadsheet runs: behind an apostrophe where it may begin a formula.

    A number, such as -5.0, is no formula.
    """
    if value is None or not value.startswith(_FORMULA) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def _chained(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the first batch and the others."""
    yield first
    yield from others


def _encoded(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield every batch as one value: the bytes of an Arrow stream."""
    for batch in batches:
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, batch.schema) as writer:
            writer.write_batch(batch)
        yield pa.RecordBatch.from_arrays([pa.array([stream.getvalue()], pa.binary())], ["batch"])


def _write_csv(file: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write CSV in UTF-8 with a header. Null is an empty value."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow([as_cell(name) for name in schema.names])
    num_rows = 0
    for batch in batches:
        writer.writerows(zip(*(_cells(column) for column in batch.columns), strict=True))
        num_rows += batch.num_rows
    text.flush()
    text.detach()
    return num_rows


def _cells(column: pa.Array) -> list[Any]:
    """Return the values of a column for CSV."""
    values = column.to_pylist()
    return [as_cell(value) for value in values] if pa.types.is_string(column.type) else values


def _write_json_lines(file: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write one JSON object a row. Characters beyond ASCII are escaped, so that no reader splits a line."""
    num_rows = 0
    for batch in batches:
        for row in batch.to_pylist():
            file.write(json.dumps(row, default=str).encode("ascii") + b"\n")
        num_rows += batch.num_rows
    return num_rows


def _write_parquet(file: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write Parquet, a row group a batch."""
    num_rows = 0
    with pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows


FORMS: dict[str, Callable[[BinaryIO, pa.Schema, Iterable[pa.RecordBatch]], int]] = {
    "csv": _write_csv,
    "jsonl": _write_json_lines,
    "parquet": _write_parquet,
}
"""Writer of each form of a file."""

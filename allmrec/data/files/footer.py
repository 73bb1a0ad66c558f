"""The footer of a Parquet file, read before Spark opens it."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from allmrec.errors import InputError
from allmrec.spark.file_bytes import FileStatus, last_bytes

_MAGIC = b"PAR1"
_LENGTH_AND_MAGIC = 8
_LIKELY = 1 << 16
"""Bytes of the first read; most footers are shorter."""


class Footer(NamedTuple):
    """The schema of a Parquet file."""

    names: tuple[str, ...]
    """The columns."""
    nanoseconds: tuple[str, ...]
    """Columns with times in nanoseconds, which Spark reads as whole numbers."""
    signature: str
    """Files with equal signatures have the same schema."""


def footer_of(spark: SparkSession, name: str, file: FileStatus) -> Footer:
    """Return a Parquet file's footer.

    Raises InputError, with the file's name, where it is damaged or truncated, or Spark cannot read or
    distinguish its columns.
    """
    end = last_bytes(spark, file, _LIKELY)
    if not end.endswith(_MAGIC):
        raise InputError(f"{name}: a Parquet file without its end (cut off?); fetch it again")
    length = int.from_bytes(end[-_LENGTH_AND_MAGIC:-4], "little") + _LENGTH_AND_MAGIC
    if length > len(end):
        end = last_bytes(spark, file, length)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + end[-length:]))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name}: a damaged Parquet file ({error}); fetch it again") from error
    columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    names = tuple(metadata.schema.to_arrow_schema().names)
    _refuse_doubles(name, names)
    times = [column.path for column in columns if str(column.logical_type).startswith("Time(")]
    if times:
        raise InputError(
            f"{name}: column {times[0]} is a time of day, which Spark cannot read; leave it out, or write it "
            "as a string"
        )
    # INT96 holds nanoseconds too; Spark reads it as a timestamp.
    nanoseconds = [
        column.path
        for column in columns
        if column.physical_type == "INT64" and "timeUnit=nanoseconds" in str(column.logical_type)
    ]
    return Footer(names, tuple(nanoseconds), str(metadata.schema))


def _refuse_doubles(name: str, names: tuple[str, ...]) -> None:
    """Raise InputError where two names differ by case only, which Spark ignores."""
    seen: dict[str, str] = {}
    for column in names:
        other = seen.setdefault(column.lower(), column)
        if other is not column:
            raise InputError(
                f"{name}: columns {other} and {column} differ by case only, which Spark cannot tell apart in "
                "Parquet; rename one"
            )

"""Rows of files of one form as frames of text columns.

No type is inferred: texts keep their literal form (`00123`). Every unreadable row has its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.data.columns import json_object
from allmrec.data.files.csv_rows import csv_rows
from allmrec.data.files.dialect import CsvForm
from allmrec.data.files.footer import Footer
from allmrec.data.files.found import FoundFile
from allmrec.data.files.lines import Row, in_order, lines_of, mapped, numbered
from allmrec.data.files.objects import Parsed, Wanted, of_document, of_line
from allmrec.data.values import as_raw
from allmrec.errors import InputError
from allmrec.spark.literal_paths import read_parquet
from allmrec.spark.troubles import first_line

_PARTITION = re.compile(r"/([^/=]+)=([^/]*)(?=/)")
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class Rows(NamedTuple):
    """Rows of files of one form."""

    files: list[FoundFile]
    frame: DataFrame
    """`raw` (the row as JSON), `problem` (its fault), and a column for each of `columns`."""
    columns: dict[str, list[tuple[str, str]]]
    """The table's column → (name in the file, column of the frame) of its sources, in order."""
    names: tuple[str, ...]
    """The file's columns, as far as its first rows show them."""
    units: dict[str, str]
    """Column of the frame → fixed unit of its times (ns)."""


def rows_of(
    spark: SparkSession, files: list[FoundFile], wanted: tuple[Wanted, ...], footer: Footer | None
) -> Rows:
    """Return the rows of files of one form.

    Raises InputError where a wanted column occurs twice, or Spark cannot open a file.
    """
    form = files[0].form
    partitions = _partitions(files)
    if form.csv is not None:
        names = (*form.csv.names, *partitions)
        frame = _csv(spark, files, form.csv, partitions, wanted)
        return _by_name(files, frame, names, wanted)
    if footer is not None:
        names = (*footer.names, *partitions)
        frame = _parquet(spark, files, footer, partitions, wanted)
        rows = _by_name(files, frame, names, wanted)
        units = {f"c{names.index(name)}": "ns" for name in footer.nanoseconds if name in names}
        return rows._replace(units=units)
    frame = _json(spark, files, wanted, partitions)
    columns: dict[str, list[tuple[str, str]]] = {}
    for number, one in enumerate(wanted):
        columns.setdefault(one.field, []).append((one.name, f"c{number}"))
    keys = dict.fromkeys(key for file in files for key in file.form.keys)
    return Rows(files, frame, columns, (*keys, *partitions), {})


def of_frame(file: FoundFile, frame: DataFrame, wanted: tuple[Wanted, ...]) -> Rows:
    """Return the rows of a table that Spark has opened."""
    names = tuple(frame.columns)
    frame = _with_raw(frame.toDF(*numbered(names)), names, wanted)
    return _by_name([file], frame, names, wanted)


def _by_name(
    files: list[FoundFile], frame: DataFrame, names: tuple[str, ...], wanted: tuple[Wanted, ...]
) -> Rows:
    """Return rows whose columns are numbered in the order of `names`."""
    for name in dict.fromkeys(one.name for one in wanted):
        if names.count(name) > 1:
            raise InputError(f"{files[0].name}: two columns are called {name}; rename one")
    columns: dict[str, list[tuple[str, str]]] = {}
    for one in wanted:
        if one.name in names:
            columns.setdefault(one.field, []).append((one.name, f"c{names.index(one.name)}"))
    return Rows(files, frame, columns, names, {})


def _with_raw(frame: DataFrame, names: tuple[str, ...], wanted: tuple[Wanted, ...]) -> DataFrame:
    """Add `raw`, and `problem` if it is missing."""
    ids = {one.name for one in wanted if one.rule == "id"}
    kinds = frame.schema
    raw = json_object(
        *(
            as_raw(F.col(column), kinds[column].dataType, name in ids).alias(name)
            for column, name in zip(numbered(names), names, strict=True)
        )
    )
    if "problem" in frame.columns:
        raw = F.when(F.col("problem").isNull(), raw).otherwise(F.to_json(F.struct(F.col("line"))))
        return frame.withColumn("raw", raw).drop("line")
    return frame.withColumns({"raw": raw, "problem": F.lit(None).cast("string")})


def _parquet(
    spark: SparkSession,
    files: list[FoundFile],
    footer: Footer,
    partitions: dict[str, None],
    wanted: tuple[Wanted, ...],
) -> DataFrame:
    if footer.nanoseconds:
        # The setting stays, because tasks read it when they begin. Delta tables and our own have no
        # nanoseconds.
        spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    try:
        frame = read_parquet(spark, *(file.uri for file in files))
    except PySparkException as error:
        raise InputError(
            f"{files[0].name}: Spark cannot read its columns ({first_line(error)}); leave out, or write "
            "otherwise, the column of that type"
        ) from error
    path = F.col("_metadata.file_path")
    frame = frame.select("*", *(_of_path(path, name).alias(name) for name in partitions))
    names = (*footer.names, *partitions)
    return _with_raw(frame.toDF(*numbered(names)), names, wanted)


def _csv(
    spark: SparkSession,
    files: list[FoundFile],
    form: CsvForm,
    partitions: dict[str, None],
    wanted: tuple[Wanted, ...],
) -> DataFrame:
    names = (*form.names, *partitions)
    frame = csv_rows(spark, files, form, keeps_path=bool(partitions))
    for number, name in enumerate(partitions, len(form.names)):
        frame = frame.withColumn(f"c{number}", _of_path(F.col("_file"), name))
    return _with_raw(frame.select(*numbered(names), "problem", "line"), names, wanted)


def _json(
    spark: SparkSession, files: list[FoundFile], wanted: tuple[Wanted, ...], partitions: dict[str, None]
) -> DataFrame:
    """Return c0, c1, … (one for each of `wanted`), raw and problem."""
    is_document = files[0].form.kind == "json"
    names = {file.uri.rpartition("/")[2]: file.name for file in files}
    lines = in_order(lines_of(spark, files, "}"), files) if is_document else lines_of(spark, files)

    def of_file(file: str, lines: Iterable[bytes]) -> Iterator[Row]:
        found: Iterable[Parsed | None]
        if is_document:
            found = of_document(lines, wanted, names.get(unquote(file.rpartition("/")[2]), file))
        else:
            found = (of_line(line, wanted) for line in lines)
        return ((*one.values, one.raw, one.problem, file) for one in found if one is not None)

    columns = [*numbered(wanted), "raw", "problem", "_file"]
    frame = mapped(lines, of_file, columns, keeps_path=is_document or bool(partitions))
    replaced = {
        f"c{number}": F.coalesce(F.col(f"c{number}"), _of_path(F.col("_file"), one.name))
        for number, one in enumerate(wanted)
        if one.name in partitions
    }
    return frame.withColumns(replaced).drop("_file") if replaced else frame.drop("_file")


def _partitions(files: list[FoundFile]) -> dict[str, None]:
    """Return the names of partition columns, folders (`day=1/`), that all files have."""
    names = [dict.fromkeys(name for name, _ in _PARTITION.findall(file.name)) for file in files]
    return {name: None for name in names[0] if all(name in others for others in names)}


def _of_path(path: Column, name: str) -> Column:
    """Return a partition's value in the path (URI) of a file. Null for Hive's default."""
    encoded = F.nullif(F.regexp_extract(path, f"/{re.escape(name)}=([^/]*)/", 1), F.lit(""))
    # The URI is encoded, and the value in the folder's name too. A plus is a letter in both.
    for _ in range(2):
        encoded = F.coalesce(F.try_url_decode(F.replace(encoded, F.lit("+"), F.lit("%2B"))), encoded)
    return F.nullif(encoded, F.lit(_NO_PARTITION))

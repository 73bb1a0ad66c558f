"""CSV, JSON lines, Parquet and Delta of any shop, by a mapping of columns (`importing.columns`)."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.columns import is_blank, json_object
from allmrec.data.importers.lines import first_line, parse_csv, parse_json, read_lines, reading, require
from allmrec.errors import InputError
from allmrec.tables import filesystem
from allmrec.tables.delta import read_delta_folder

FIRST_DAY = "2000-01-01 00:00:00"
"""When the synthetic times of files that only know an order begin (UTC): the time of position 0."""
_INTERACTIONS = ("user_id", "item_id", "event_time", "position", "rating", "event_type")
_ITEMS = ("item_id", "title", "description", "categories", "available", "updated_at")
_TEXTS = ("user_id", "item_id", "event_type", "title")
"""Fields that are texts whatever the type of their column."""


def read_files(
    spark: SparkSession,
    interactions: str,
    items: str,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) as they are in the two files.

    Both have the columns of their table, as text or typed, `raw` and `problem`.

    A file is CSV with a header (comma or tab), JSON lines, Parquet or a Delta folder, which its name and
    first line tell; `.gz` and other compressed files are read too. Where the interactions have an order but
    no time, they get synthetic times, one minute per position from `FIRST_DAY`, and `report` says so. Raises
    InputError where a file or a column that must be there is missing, and TableError where a Delta folder
    cannot be read.
    """
    log = _read(spark, interactions, _INTERACTIONS, config)
    for field in ("user_id", "item_id"):
        _require_column(log, field, config)
    if not log.columns_of["event_time"]:
        _require_column(log, "event_time", config, or_else="position")
        report(
            f"{interactions}: no time, only an order: "
            f"synthetic times, one minute a position from {FIRST_DAY} UTC"
        )
        log = log._replace(frame=_with_synthetic_times(log.frame))
    catalogue = _read(spark, items, _ITEMS, config)
    for field in ("item_id", "title"):
        _require_column(catalogue, field, config)
    types = dict(catalogue.frame.dtypes)
    categories = category_path(F.col("categories"), types["categories"], config.category_separator)
    description = joined_text(F.col("description"), types["description"])
    return log.frame.drop("position"), catalogue.frame.withColumns(
        {"categories": categories, "description": description}
    )


def read_users(spark: SparkSession, users: str, config: ImportingConfig) -> DataFrame:
    """Return (user_id) of a file of users, each once and none blank.

    Raises InputError where the file or its column is missing, and TableError where a Delta folder cannot be
    read.
    """
    file = _read(spark, users, ("user_id",), config)
    _require_column(file, "user_id", config)
    user_id = F.col("user_id")
    return file.frame.where(user_id.isNotNull() & ~is_blank(user_id)).select("user_id").distinct()


def category_path(column: Column, kind: str, separator: str | None) -> Column:
    """Return categories as one array from root to leaf.

    Of nested arrays that is the first path, a flat array stays as it is, and a text is split at `separator`,
    or is one category where that is None. `kind` is the column's simple type; a text that is a JSON array is
    read as one.
    """
    if kind.startswith("array<array<"):
        return F.get(column, F.lit(0)).cast("array<string>")
    if kind.startswith("array<"):
        return column.cast("array<string>")
    text = column.cast("string")
    is_list = F.ltrim(text).startswith("[")
    outer = F.from_json(F.when(is_list, text), "array<string>")
    first = F.get(outer, F.lit(0))
    is_nested = F.ltrim(first).startswith("[")
    inner = F.from_json(F.when(is_nested, first), "array<string>")
    plain = F.split(text, f"\\Q{separator}\\E") if separator else F.array(text)
    return F.when(is_list, F.when(is_nested, inner).otherwise(outer)).when(F.trim(text) != "", plain)


def joined_text(column: Column, kind: str) -> Column:
    """Return a text, or an array of texts (also as JSON), as one text. `kind` is the column's simple type."""
    if kind.startswith("array<"):
        return F.array_join(column.cast("array<string>"), " ")
    text = column.cast("string")
    parts = F.from_json(F.when(F.ltrim(text).startswith("["), text), "array<string>")
    return F.coalesce(F.array_join(parts, " "), text)


class _File(NamedTuple):
    """What was read of one file."""

    path: str
    frame: DataFrame
    """The fields asked for (null where no column holds one), `raw` and `problem`."""
    columns_of: dict[str, list[str]]
    """The file's columns that hold a field, by field."""


def _read(spark: SparkSession, path: str, fields: tuple[str, ...], config: ImportingConfig) -> _File:
    """Return `fields` of a file of any form. Raises InputError where it is not there or cannot be read."""
    mapping = config.columns.model_dump()
    require(spark, path)
    frame = (
        _read_table(spark, path)
        if _is_table(spark, path)
        else _read_text(spark, path, tuple(mapping[field] for field in fields))
    )
    columns_of = {field: [name for name in mapping[field] if name in frame.columns] for field in fields}
    columns = [_first_present(columns_of[field], as_text=field in _TEXTS).alias(field) for field in fields]
    return _File(path, frame.select(*columns, "raw", "problem"), columns_of)


def _read_table(spark: SparkSession, path: str) -> DataFrame:
    """Return a Parquet or Delta file's own columns, `raw` and `problem`."""
    is_delta = filesystem.exists(spark, f"{path}/_delta_log")
    frame = read_delta_folder(spark, path) if is_delta else spark.read.parquet(path)
    raw = json_object(*(F.col(f"`{name}`") for name in frame.columns))
    return frame.withColumns({"raw": raw, "problem": F.lit(None).cast("string")})


def _read_text(spark: SparkSession, path: str, names_of_fields: tuple[tuple[str, ...], ...]) -> DataFrame:
    """Return a text file's columns as text, `raw` and `problem`; of JSON lines only the columns named."""
    first = first_line(spark, path)
    if first.lstrip().startswith("{"):
        return _read_json(
            spark, path, tuple(dict.fromkeys(name for names in names_of_fields for name in names))
        )
    separator = "\t" if "\t" in first and "," not in first else ","
    header = tuple(name.strip() for name in next(csv.reader([first], delimiter=separator)))
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header names a column twice: {first[:200]}; rename one")
    return parse_csv(read_lines(spark, path), first, header, separator)


def _read_json(spark: SparkSession, path: str, names: tuple[str, ...]) -> DataFrame:
    """Return those columns of `names` that any line has: only the lines tell which columns JSON has."""
    rows = parse_json(read_lines(spark, path), names)
    with reading(path):
        present = rows.select(*(F.max(F.col(f"`{name}`").isNotNull()).alias(name) for name in names)).first()
    return rows.drop(*(name for name in names if present is None or not present[name]))


def _is_table(spark: SparkSession, path: str) -> bool:
    """Return whether the file or folder is Parquet or Delta."""
    return path.rstrip("/").endswith(".parquet") or any(
        name == "_delta_log" or name.endswith(".parquet") for name in filesystem.list_names(spark, path)
    )


def _first_present(columns: list[str], as_text: bool) -> Column:
    """Return, row by row, the first of the columns that is not null; a null text where there are none."""
    if not columns:
        return F.lit(None).cast("string")
    chosen = F.coalesce(*(F.col(f"`{name}`") for name in columns))
    return chosen.cast("string") if as_text else chosen


def _require_column(file: _File, field: str, config: ImportingConfig, or_else: str | None = None) -> None:
    """Raise InputError where no column of the file holds `field`, nor (where that is given) `or_else`."""
    if file.columns_of[field] or (or_else and file.columns_of[or_else]):
        return
    mapping = config.columns.model_dump()
    names = " or ".join(name for wanted in (field, or_else) if wanted for name in mapping[wanted])
    raise InputError(
        f"{file.path}: no column for {field}, expected one named {names}; "
        f"name yours by --set importing.columns.{field}='[...]'"
    )


def _with_synthetic_times(interactions: DataFrame) -> DataFrame:
    """Return the interactions with a time for each `position`.

    A position that is no number stays as it is, to be rejected as a time that cannot be read.
    """
    position = F.expr("try_cast(trim(CAST(position AS string)) AS decimal(12,0))")
    seconds = F.lit(FIRST_DAY).cast("timestamp").cast("bigint") + position * 60
    time = F.coalesce(seconds.cast("string"), F.col("position").cast("string"))
    return interactions.withColumn("event_time", time)

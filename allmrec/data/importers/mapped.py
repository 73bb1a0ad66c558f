"""CSV, JSON lines, Parquet and Delta of any shop, by a mapping of columns (`importing.columns`)."""

from __future__ import annotations

import csv
from collections.abc import Callable

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.importers.lines import first_line, parse_csv, parse_json, read_lines, reading, require
from allmrec.data.interactions import empty
from allmrec.errors import InputError
from allmrec.tables import filesystem
from allmrec.tables.delta import read_delta_folder

FIRST_DAY = "2000-01-01 00:00:00"
"""Where synthetic times of files that only know an order begin (UTC): position 0."""
_INTERACTIONS = ("user_id", "item_id", "event_time", "position", "rating", "event_type")
_ITEMS = ("item_id", "title", "description", "categories", "available", "updated_at")


def read_files(
    spark: SparkSession,
    interactions: str,
    items: str,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) as they are in the two files: text or typed columns of the tables, `raw` and `problem`.

    A file is CSV with a header (comma or tab), JSON lines, Parquet or a Delta folder, told by its name; `.gz` and the like are read too.
    Where the interactions have an order but no time, they get synthetic times, one minute a position from `FIRST_DAY`, and `report` says so.
    Raises InputError where a file or a column that must be there is missing.
    """
    events, fields = _read(spark, interactions, _INTERACTIONS, config)
    for needed in ("user_id", "item_id"):
        _need(interactions, needed, fields, config)
    if not fields["event_time"]:
        _need(interactions, "position", fields, config, "event_time")
        report(
            f"{interactions}: no time, only an order: synthetic times, one minute a position from {FIRST_DAY} UTC"
        )
        place = F.expr("try_cast(trim(CAST(position AS string)) AS decimal(12,0))")
        seconds = F.lit(FIRST_DAY).cast("timestamp").cast("bigint") + place * 60
        # A position that is no number stays as it is, to be rejected as a time that cannot be read.
        events = events.withColumn(
            "event_time", F.coalesce(seconds.cast("string"), F.col("position").cast("string"))
        )
    catalogue, fields = _read(spark, items, _ITEMS, config)
    for needed in ("item_id", "title"):
        _need(items, needed, fields, config)
    types = dict(catalogue.dtypes)
    catalogue = catalogue.withColumn(
        "categories", category_path(F.col("categories"), types["categories"], config.category_separator)
    )
    catalogue = catalogue.withColumn("description", joined_text(F.col("description"), types["description"]))
    return events.drop("position"), catalogue


def read_users(spark: SparkSession, users: str, config: ImportingConfig) -> DataFrame:
    """Return (user_id) of a file of users, each once and none empty. Raises InputError where the file or its column is missing."""
    rows, fields = _read(spark, users, ("user_id",), config)
    _need(users, "user_id", fields, config)
    return rows.where(F.col("user_id").isNotNull() & ~empty(F.col("user_id"))).select("user_id").distinct()


def category_path(column: Column, kind: str, separator: str | None) -> Column:
    """Return categories as one root-to-leaf array: the first path of nested ones, a flat array as it is, a text split or as one category.

    `kind` is the column's simple type; a text that is a JSON array is read as one.
    """
    if kind.startswith("array<array<"):
        return F.get(column, F.lit(0)).cast("array<string>")
    if kind.startswith("array<"):
        return column.cast("array<string>")
    text = column.cast("string")
    is_list = F.ltrim(text).startswith("[")
    outer = F.from_json(F.when(is_list, text), "array<string>")
    first = F.get(outer, F.lit(0))
    nested = F.ltrim(first).startswith("[")
    inner = F.from_json(F.when(nested, first), "array<string>")
    plain = F.split(text, f"\\Q{separator}\\E") if separator else F.array(text)
    return F.when(is_list, F.when(nested, inner).otherwise(outer)).when(F.trim(text) != "", plain)


def joined_text(column: Column, kind: str) -> Column:
    """Return a text, or an array of texts (also as JSON), as one text."""
    if kind.startswith("array<"):
        return F.array_join(column.cast("array<string>"), " ")
    text = column.cast("string")
    parts = F.from_json(F.when(F.ltrim(text).startswith("["), text), "array<string>")
    return F.coalesce(F.array_join(parts, " "), text)


def _read(
    spark: SparkSession, path: str, fields: tuple[str, ...], config: ImportingConfig
) -> tuple[DataFrame, dict[str, list[str]]]:
    """Return the frame with `fields` (null where no column carries one), `raw`, `problem`; and which columns carry each field."""
    mapping = config.columns.model_dump()
    require(spark, path)
    frame = (
        _typed(spark, path)
        if _is_table(spark, path)
        else _lines(spark, path, tuple(mapping[name] for name in fields))
    )
    carried = {name: [column for column in mapping[name] if column in frame.columns] for name in fields}
    columns = [
        _first_present(
            frame, carried[name], as_text=name in ("user_id", "item_id", "event_type", "title")
        ).alias(name)
        for name in fields
    ]
    return frame.select(*columns, "raw", "problem"), carried


def _typed(spark: SparkSession, path: str) -> DataFrame:
    frame = (
        read_delta_folder(spark, path)
        if filesystem.exists(spark, f"{path}/_delta_log")
        else spark.read.parquet(path)
    )
    raw = F.to_json(F.struct(*(F.col(f"`{name}`") for name in frame.columns)), {"ignoreNullFields": "false"})
    return frame.withColumns({"raw": raw, "problem": F.lit(None).cast("string")})


def _lines(spark: SparkSession, path: str, wanted: tuple[tuple[str, ...], ...]) -> DataFrame:
    first = first_line(spark, path)
    if first.lstrip().startswith("{"):
        names = tuple(dict.fromkeys(column for columns in wanted for column in columns))
        rows = parse_json(read_lines(spark, path), names)
        # Of JSON only the rows tell which columns there are; one that no row has is not there.
        with reading(path):
            present = rows.select(
                *(F.max(F.col(f"`{name}`").isNotNull()).alias(name) for name in names)
            ).first()
        return rows.drop(*(name for name in names if present is None or not present[name]))
    separator = "\t" if "\t" in first and "," not in first else ","
    header = tuple(name.strip() for name in next(csv.reader([first], delimiter=separator)))
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header names a column twice: {first[:200]}; rename one")
    return parse_csv(read_lines(spark, path), first, header, separator)


def _is_table(spark: SparkSession, path: str) -> bool:
    return path.rstrip("/").endswith(".parquet") or any(
        name == "_delta_log" or name.endswith(".parquet") for name in filesystem.list_names(spark, path)
    )


def _first_present(frame: DataFrame, columns: list[str], as_text: bool) -> Column:
    if not columns:
        return F.lit(None).cast("string")
    chosen = F.coalesce(*(F.col(f"`{name}`") for name in columns))
    return chosen.cast("string") if as_text else chosen


def _need(
    path: str, field: str, carried: dict[str, list[str]], config: ImportingConfig, instead: str | None = None
) -> None:
    if carried[field]:
        return
    mapping = config.columns.model_dump()
    names = " or ".join(column for name in (instead, field) if name for column in mapping[name])
    asked = instead or field
    raise InputError(
        f"{path}: no column for {asked}, expected one named {names}; name yours by --set importing.columns.{asked}='[...]'"
    )

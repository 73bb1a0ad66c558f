"""Input tables in place: names, types and a condition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.data.columns import json_object
from allmrec.data.rules import EXPECTED, RULES, reason_of
from allmrec.data.times import may_be_before, may_be_since
from allmrec.data.values import Conversion, as_raw, can_read, read_columns, typed
from allmrec.errors import ConfigError, TableError
from allmrec.spark.troubles import first_line
from allmrec.tables.schemas import TABLES
from allmrec.tables.sources import Source

MAX_NAMES = 40
"""How many columns of a table an error names."""
_PASSING = re.compile(
    r"\b(current_\w+|curdate|localtimestamp|now|unix_timestamp|rand\w*|uuid|select)\b", re.IGNORECASE
)
"""Parts of a condition whose result for a row may change with time."""


def read_in_place(
    source: Source,
    version: int | None,
    before: date | None = None,
    since: date | None = None,
    shown: Sequence[str] = (),
    whole: bool = False,
) -> DataFrame:
    """Return the source's rows at a version, as `as_ours` makes them."""
    return as_ours(source, source.read(version), before, since, shown, whole)


def as_ours(
    source: Source,
    frame: DataFrame,
    before: date | None = None,
    since: date | None = None,
    shown: Sequence[str] = (),
    whole: bool = False,
) -> DataFrame:
    """Return the source's rows with the table's columns and types.

    `frame` has the source's own columns. If a column is converted by `values`, two columns are added: `raw`,
    the row of the source as JSON, and `problem`, the reason of an unreadable value (null: none). With
    `before` the result needs only rows whose `event_time` is before midnight (UTC) of that day or unreadable;
    with `since` only rows from midnight of that day on. Other rows are skipped if the column's type permits
    it. With `shown` the column `item` is added: the source's columns of these names, as texts; with
    `whole` it is a struct of all the source's columns, except maps, which have no order.

    Raises TableError where the table cannot be read, or a column is missing or of a type that is not safe to
    cast; ConfigError where `columns` or `where` of its settings, or `shown`, do not fit it.
    """
    item = [_whole_row(frame)] if whole else [_item_values(source, frame, shown)] if shown else []
    theirs = _columns_of(source, frame)
    frame = _where(source, frame)
    kinds = {field.name: field.dataType for field in frame.schema}
    _check_types(source, theirs, kinds)
    for day, may_be in ((before, may_be_before), (since, may_be_since)):
        if day is not None:
            name = theirs["event_time"]
            condition = may_be(_named(name), kinds[name], day, source.settings.time_format)
            frame = frame if condition is None else frame.where(condition)
    # Made before the columns are renamed, because a column may become two of the table.
    ids = {name for ours, name in theirs.items() if RULES[ours] == "id"}
    raw = json_object(
        *(
            as_raw(_named(name), kinds[name], name in ids).alias(name)
            for name in dict.fromkeys(theirs.values())
        )
    )
    columns = [
        (_named(theirs[column.name]) if column.name in theirs else F.lit(None).cast(column.type)).alias(
            column.name
        )
        for column in TABLES[source.name].columns
    ]
    # Texts of our own table were checked when they were imported.
    rows = frame.select(*columns, raw.alias("raw"), *item)
    rows = typed(rows, source.name, source.settings, source.is_own)
    return rows if "problem" in rows.columns else rows.drop("raw")


def other_columns(source: Source, version: int | None, names: Sequence[str]) -> DataFrame:
    """Return item_id and any columns of the table of items at a version, as texts; empty texts are null.

    The columns are `names` in order. Of rows with one id those of the newest `updated_at` count, then the
    largest. Raises ConfigError where a column is missing.
    """
    frame = _where(source, source.read(version))
    for name in names:
        if name not in frame.columns:
            raise ConfigError(
                f"publish.max_per.{name}: no column {name} in {source.place}, expected category or one of "
                f"{_listed(frame.columns)}"
            )
    theirs = _columns_of(source, frame)
    kept = {
        ours: _named(theirs[ours]).alias(f"_{ours}") for ours in ("item_id", "updated_at") if ours in theirs
    }
    texts = [F.nullif(F.trim(_named(name).cast("string")), F.lit("")).alias(name) for name in names]
    asked = [Conversion(f"_{ours}", RULES[ours], reason_of(ours), source.settings) for ours in kept]
    rows, reads = read_columns(frame.select(*kept.values(), *texts), asked)
    newest = F.max(F.struct(*(read.value for read in reads[1:]), *map(_named, names))).alias("newest")
    by_id = rows.groupBy(reads[0].value.alias("item_id")).agg(newest)
    return by_id.select("item_id", *(F.col("newest")[name].alias(name) for name in names))


def is_lasting(source: Source) -> bool:
    """Return whether `where` is deterministic.

    A deterministic condition contains no current date, no random number and no subquery.
    """
    return not _PASSING.search(source.settings.where or "")


def _item_values(source: Source, frame: DataFrame, shown: Sequence[str]) -> Column:
    """Return the column `item`. Raises ConfigError where the source lacks a column."""
    missing = [name for name in shown if name not in frame.columns]
    if missing:
        raise ConfigError(
            f"publish.item_columns: {_listed(missing)}, expected columns of {source.place}, which has "
            f"{_listed(frame.columns)}; name some of these, or leave the others out"
        )
    pairs = [
        F.struct(
            F.lit(name).alias("name"), _as_text(_named(name), frame.schema[name].dataType).alias("value")
        )
        for name in shown
    ]
    return F.array(*pairs).alias("item")


def _whole_row(frame: DataFrame) -> Column:
    """Return the column `item` of all columns that can be ordered."""
    names = [field.name for field in frame.schema if "map<" not in field.dataType.simpleString()]
    return F.struct(*map(_named, names)).alias("item")


def _as_text(value: Column, kind: T.DataType) -> Column:
    """Return a value as Spark casts it to a text; lists, structs and maps as JSON. Null stays null."""
    is_nested = isinstance(kind, T.ArrayType | T.StructType | T.MapType)
    return F.to_json(value) if is_nested else value.cast("string")


def _columns_of(source: Source, frame: DataFrame) -> dict[str, str]:
    """Return column of the table → column of the source."""
    spec = TABLES[source.name]
    mapping = source.settings.columns
    unknown = sorted(set(mapping) - set(spec.schema.fieldNames()))
    if unknown:
        raise ConfigError(
            f"tables.{source.name}.columns: {', '.join(unknown)}, "
            f"expected some of {', '.join(spec.schema.fieldNames())}"
        )
    names = {column.name: mapping.get(column.name, column.name) for column in spec.columns}
    for column in spec.columns:
        name = names[column.name]
        if name not in frame.columns and (column.required or column.name in mapping):
            raise TableError(
                f"{source.name}: no column {name} in {source.place}, which has {_listed(frame.columns)}; "
                f"name the one for {column.name} by tables.{source.name}.columns.{column.name}"
            )
    return {ours: name for ours, name in names.items() if name in frame.columns}


def _where(source: Source, frame: DataFrame) -> DataFrame:
    """Return the rows that meet the configured condition."""
    condition = source.settings.where
    if condition is None:
        return frame
    try:
        return frame.where(condition)
    except PySparkException as error:
        raise ConfigError(
            f"tables.{source.name}.where: {condition}: {first_line(error)}; "
            f"expected a condition on columns of {source.place}: {_listed(frame.columns)}"
        ) from error


def _check_types(source: Source, theirs: dict[str, str], kinds: dict[str, T.DataType]) -> None:
    """Raise TableError where the values of a column's type cannot be read."""
    for ours, name in theirs.items():
        if not can_read(kinds[name], RULES[ours]):
            raise TableError(
                f"{source.name}: column {name} of {source.place} is {kinds[name].simpleString()}, "
                f"expected for {ours} {EXPECTED[RULES[ours]]}; cast it in a view, or name another column"
            )


def _listed(names: list[str]) -> str:
    """Return the first names of a list that may be long."""
    return ", ".join([*names[:MAX_NAMES], *(["…"] if len(names) > MAX_NAMES else [])])


def _named(name: str) -> Column:
    """Return a column by its name with any characters."""
    return F.col(f"`{name.replace('`', '``')}`")

"""Rows of files as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import ImportingConfig
from allmrec.data.files.damage import reading
from allmrec.data.files.footer import Footer, footer_of
from allmrec.data.files.form import Asked, Form
from allmrec.data.files.found import Copies, FoundFile, find
from allmrec.data.files.objects import Wanted
from allmrec.data.files.rows import Rows, of_frame, rows_of
from allmrec.data.importers.positions import SAID
from allmrec.data.rules import EXPECTED, RULES, TYPES, reason_of
from allmrec.data.values import Conversion, Read, can_read, read_columns
from allmrec.errors import InputError
from allmrec.spark import file_bytes, filesystem
from allmrec.spark.file_bytes import FileStatus
from allmrec.tables.delta import read_delta_folder
from allmrec.tables.schemas import TABLES

REQUIRED = {"interactions": ("user_id", "item_id", "event_time"), "items": ("item_id", "title")} | {
    "users": ("user_id",)
}
"""Columns that a file must have, by table."""
MAX_NAMES = 20
"""How many columns of a file an error names."""


class Field(NamedTuple):
    """A value that is read of every row."""

    name: str
    """The table's column, or the name of a value that becomes part of one."""
    names: tuple[str, ...]
    """The file's columns that may have it. In each row the first that is not null counts."""
    rule: str
    """The rule that reads it (`allmrec.data.values`)."""


class Task(NamedTuple):
    """A path, and the fields to read from it."""

    path: str
    table: str
    fields: tuple[Field, ...]
    rules: ImportingConfig
    report: Callable[[str], None]
    advice: str = "name yours by --set importing.columns.{field}='[...]'"
    """Advice if no column has a field."""
    either: tuple[str, str] = ("", "")
    """Two fields: the second is read if no column has the first."""


def fields_of(
    table: str,
    mapping: Mapping[str, tuple[str, ...]],
    more: Mapping[str, tuple[tuple[str, ...], str]] | None = None,
) -> tuple[Field, ...]:
    """Return the fields of a table by a mapping. `more` has (names, rule) of others."""
    own = (Field(name, mapping.get(name, ()), RULES[name]) for name in TABLES[table].schema.fieldNames())
    return (*own, *(Field(name, names, rule) for name, (names, rule) in (more or {}).items()))


def read_table(copies: Copies, task: Task) -> DataFrame:
    """Return the rows below a path: fields, `raw` and `problem`.

    A path is a file or a folder of CSV, JSON, Parquet or Delta; files may differ in form and in columns. The
    recognised form of each file is reported. Raises InputError, with the file's name, where a file cannot be
    read, or a column is missing or has a type that its field cannot be read from; TableError where a Delta
    folder cannot be read.
    """
    frames = []
    for rows in _groups(copies, task):
        _require(rows, task)
        fields = [field for field in task.fields if _is_read(rows, field, task)]
        task.report(_said(rows, fields, task))
        frames.append(_typed(rows, fields, task))
    return reduce(DataFrame.unionByName, frames)


def _groups(copies: Copies, task: Task) -> Iterator[Rows]:
    """Yield the rows of the files below a path, grouped by form."""
    spark = copies.spark
    wanted = tuple(Wanted(field.name, name, field.rule) for field in task.fields for name in field.names)
    root = file_bytes.qualified(spark, task.path)
    if filesystem.exists(spark, f"{root}/_delta_log"):
        file = FoundFile(task.path, root, 0, Form("parquet"), True)
        yield of_frame(file, read_delta_folder(spark, root), wanted)
        return
    header = task.rules.csv.header.get(task.table)  # type: ignore[call-overload]
    asked = Asked(task.rules.csv, {one.name for one in wanted}, header)
    groups: dict[object, tuple[list[FoundFile], Footer | None]] = {}
    for file in find(copies, task.path, asked, task.report):
        is_parquet = file.form.kind == "parquet"
        status = FileStatus(file.uri, file.length)
        footer = footer_of(spark, file.name, status) if is_parquet else None
        key = footer.signature if footer else file.form._replace(keys=())
        groups.setdefault(key, ([], footer))[0].append(file)
    for files, footer in groups.values():
        yield rows_of(spark, files, wanted, footer)


def _require(rows: Rows, task: Task) -> None:
    """Raise InputError where no column has a required field."""
    for field in REQUIRED[task.table]:
        alternatives = (field, task.either[1]) if field == task.either[0] else (field,)
        if not any(_is_there(rows, one) for one in alternatives):
            wanted = {one.name: one.names for one in task.fields}
            names = " or ".join(name for one in alternatives for name in wanted.get(one, ()))
            has = ", ".join([*rows.names[:MAX_NAMES], *(["…"] if rows.names[MAX_NAMES:] else [])])
            raise InputError(
                f"{rows.files[0].name}: no column for {field}, expected one named {names}; it has {has}; "
                f"{task.advice.format(field=field)}{_if_headless(rows, task)}"
            )


def _is_there(rows: Rows, field: str) -> bool:
    """Return whether a column has a field.

    The rows of JSON are searched if its beginning lacks the field.
    """
    columns = rows.columns.get(field, [])
    if rows.files[0].form.kind not in ("json", "json_lines"):
        return bool(columns)
    if any(name in rows.names for name, _ in columns):
        return True
    if not columns or all(file.is_whole for file in rows.files):
        return False
    with reading(rows.files[0].name):
        return not rows.frame.where(
            F.coalesce(*(F.col(column) for _, column in columns)).isNotNull()
        ).isEmpty()


def _is_read(rows: Rows, field: Field, task: Task) -> bool:
    """Return whether a field is read; alternatives only for missing fields."""
    return field.name != task.either[1] or not _is_there(rows, task.either[0])


def _if_headless(rows: Rows, task: Task) -> str:
    """Return advice for a CSV file that may lack a header."""
    is_csv = rows.files[0].form.kind == "csv"
    if not is_csv or any(rows.columns.values()):
        return ""
    return f"; if line 1 is no header, name the columns by importing.csv.header.{task.table}"


def _typed(rows: Rows, fields: list[Field], task: Task) -> DataFrame:
    """Return the task's fields in the table's types, with `raw` and `problem`.

    Fields that are not in `fields` are null.
    """
    kinds = {field.name: field.dataType for field in rows.frame.schema}
    places: dict[str, list[int]] = {field.name: [] for field in task.fields}
    asked: list[Conversion] = []
    for field in fields:
        for name, column in rows.columns.get(field.name, []):
            if not can_read(kinds[column], field.rule):
                raise InputError(
                    f"{rows.files[0].name}: column {name} is {kinds[column].simpleString()}, expected for "
                    f"{field.name} {EXPECTED[field.rule]}; write it as such, or name another column by "
                    f"importing.columns.{field.name}"
                )
            rules = task.rules
            if column in rows.units:
                rules = rules.model_copy(update={"time_format": rows.units[column]})
            places[field.name].append(len(asked))
            asked.append(Conversion(column, field.rule, reason_of(field.name), rules))
    frame, reads = read_columns(rows.frame, asked)
    values = []
    faults = [F.col("problem")]
    for field in task.fields:
        if places[field.name]:
            read = _first([reads[place] for place in places[field.name]])
            values.append(read.value.alias(field.name))
            faults.append(read.fault)
        else:
            values.append(F.lit(None).cast(TYPES[field.rule]).alias(field.name))
    return frame.select(*values, "raw", F.coalesce(*faults).alias("problem"))


def _first(reads: list[Read]) -> Read:
    """Return, row by row, the first column with a value."""
    value = F.coalesce(*(read.value for read in reads))
    fault = reads[-1].fault
    for read in reversed(reads[:-1]):
        fault = F.when(read.value.isNull(), F.coalesce(read.fault, fault))
    return Read(F.when(fault.isNull(), value) if len(reads) > 1 else value, fault)


def _said(rows: Rows, fields: list[Field], task: Task) -> str:
    """Return a line about the form of the files and their columns."""
    files = rows.files
    place = files[0].name if len(files) == 1 else f"{task.path}: {len(files):,} files such as {files[0].name}"
    columns = []
    for field in fields:
        names = [name for name, _ in rows.columns.get(field.name, [])]
        if files[0].form.kind in ("json", "json_lines"):
            names = [name for name in names if name in rows.names]
        if names:
            columns.append(f"{field.name} from {' or '.join(names)}{_times_said(rows, field, task)}")
    return f"{place}: {_form_said(rows)}; {', '.join(columns)}"


def _form_said(rows: Rows) -> str:
    is_delta = rows.files[0].form.kind == "parquet" and not rows.files[0].length
    return "Delta" if is_delta else str(rows.files[0].form)


def _times_said(rows: Rows, field: Field, task: Task) -> str:
    """Return in words how the times of a field are read."""
    if field.name == "position":
        return f" ({SAID})"
    if field.rule != "time":
        return ""
    column = rows.columns[field.name][0][1]
    kind = rows.frame.schema[column].dataType
    if column in rows.units:
        return " (nanoseconds)"
    if isinstance(kind, T.DateType):
        return " (dates: midnight UTC)"
    if isinstance(kind, T.TimestampType | T.TimestampNTZType):
        return " (timestamps)"
    return f" (format {task.rules.time_format})" if task.rules.time_format else " (Unix numbers or ISO texts)"

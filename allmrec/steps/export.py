"""`allmrec export`: a published night's e-mails or feeds as one local file for a mailing tool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.errors import InputError
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.tables.local_file import batches_of, write_file
from allmrec.views.night_records import NightRecord, read_nights


class Export(NamedTuple):
    """The file that is asked for."""

    table: str
    """email or feed."""
    form: str
    """csv, jsonl or parquet."""
    per: str
    """A row of the file: slot or user."""
    out: Path


def run_export(context: Context, run_date: date | None, asked: Export) -> list[str]:
    """Write a date's published rows (default: the newest published date). Return lines for the user.

    Raises InputError where the date is not published, or the tables hold other rows than were published;
    OSError where the file cannot be written.
    """
    newest = read_nights(context, None, 1).night
    night = _newest_published(context, newest) if run_date is None else Night(context, run_date)
    table = f"{asked.table}_recommendations"
    published = night.done("publish")
    rows = as_file_rows(published.read(table), asked.form, asked.per)
    num_rows = write_file(asked.out, asked.form, *batches_of(rows))
    num_users = published.row.outputs[table].num_rows
    lines = [f"{table} of {night.run_date}: {num_users:,} users, {num_rows:,} rows in {asked.out}"]
    if run_date is None and night.run_date < newest.run_date:
        lines.append(
            f"the newest run date, {newest.run_date}, is not published ({newest.status}): "
            f"the file has the rows of {night.run_date}"
        )
    return lines


def _newest_published(context: Context, newest: NightRecord) -> Night:
    """Return the newest published date. Raises InputError where there is none."""
    found = Night(context, newest.run_date + timedelta(days=1)).before("publish")
    if found is None:
        raise InputError(
            f"runs: no published night (the newest, {newest.run_date}: {newest.status}), expected one; "
            f"run `allmrec nightly --run-date {newest.run_date}`"
        )
    return found


def as_file_rows(rows: DataFrame, form: str, per: str) -> DataFrame:
    """Return published rows in the shape and order of the file.

    A slot has its place (`slot`, from 1), its fields, and the columns of `publish.item_columns`. A row a user
    has a list of slots; in CSV a column for each value of each slot, with the place as its ending
    (`title_1`).
    """
    users = [name for name in rows.columns if name != "slots"]
    item_columns, num_slots = _extent(rows)
    flat = rows.select(*users, _flat_slots(rows, users, item_columns).alias("slots"))
    if per == "slot":
        return flat.select(*users, F.inline("slots")).orderBy("user_id", "slot")
    if form != "csv":
        return flat.orderBy("user_id")
    names = [name for name in _fields(flat) if name != "slot"]
    values = [
        F.get("slots", F.lit(place))[name].alias(f"{name}_{place + 1}")
        for place in range(num_slots)
        for name in names
    ]
    return flat.select(*users, *values).orderBy("user_id")


def _extent(rows: DataFrame) -> tuple[list[str], int]:
    """Return the item columns that the date's slots have, and the largest number of slots."""
    names = F.get("slots", F.lit(0))["item"]["name"]
    found = rows.agg(F.first(names, ignorenulls=True), F.max(F.size("slots"))).first()
    assert found is not None
    return found[0] or [], found[1] or 0


def _flat_slots(rows: DataFrame, users: Sequence[str], item_columns: Sequence[str]) -> Column:
    """Return the slots as structs of single values.

    An item column gets `item_` before its name where a column of the table or of its slots has that name.
    """
    fields = [name for name in _fields(rows) if name != "item"]
    taken = {"slot", *users, *fields}
    names = []
    for name in item_columns:
        while name.lower() in taken:
            name = f"item_{name}"
        taken.add(name.lower())
        names.append(name)

    def flat(slot: Column, place: Column) -> Column:
        own = [slot[name].alias(name) for name in fields]
        values = [F.get(slot["item"], F.lit(number))["value"] for number in range(len(names))]
        of_item = [value.alias(name) for value, name in zip(values, names, strict=True)]
        return F.struct((place + 1).alias("slot"), *own, *of_item)

    return F.transform("slots", flat)


def _fields(rows: DataFrame) -> list[str]:
    """Return the names of a slot's fields."""
    kind = rows.schema["slots"].dataType
    assert isinstance(kind, T.ArrayType)
    assert isinstance(kind.elementType, T.StructType)
    return list(kind.elementType.names)

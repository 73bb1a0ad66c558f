"""The rows of `runs`: steps of runs, their inputs and outcomes.

A step adds a row when it begins and a row when it ends. Rows are only added, so that runs at the same time
never conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from types import MappingProxyType
from typing import Any

from allmrec.tables.delta import Tables, Written

MAX_MESSAGE = 2000
"""Maximal number of characters of an error in `runs.message`."""
NIGHT = ("sequences", "candidates", "score", "publish")
"""The steps of a night, in order."""
MAPS = ("input_versions", "counts", "timings", "figures", "outputs", "gates")
"""The maps of `RunRow` that may be null in `runs`."""
NULL: Mapping[str, Any] = MappingProxyType({})
"""The null of a map in `runs`: an empty map for readers, stored as null again."""


def _null() -> Mapping[str, Any]:
    return NULL


@dataclass(frozen=True)
class RunRow:
    """A row of `runs`; the attributes are its columns."""

    run_id: str
    step: str
    status: str
    """started, done or failed."""
    started_at: datetime
    run_date: date | None = None
    finished_at: datetime | None = None
    fingerprint: str | None = None
    input_versions: Mapping[str, int] = field(default_factory=_null)
    """Version of every input table."""
    bundle_id: str | None = None
    config_hash: str | None = None
    counts: Mapping[str, int] = field(default_factory=_null)
    timings: Mapping[str, float] = field(default_factory=_null)
    """Seconds by part of the step; `all` is the whole step."""
    figures: Mapping[str, float] = field(default_factory=_null)
    message: str | None = None
    """The error of a failed step."""
    run_order: int | None = None
    outputs: Mapping[str, Written] = field(default_factory=_null)
    """The step's rows in each table."""
    gates: Mapping[str, float] = field(default_factory=_null)
    overridden: list[str] | None = None
    llm_dtype: str | None = None
    table_ids: Mapping[str, str] | None = None
    """Delta's id of every table that was read or written; None from an older version."""
    broken: list[str] | None = None
    """The rules that made the step fail. None in rows of older versions, whose `message` names them."""

    def columns(self) -> dict[str, Any]:
        """Return the values as they are stored, by column."""
        return {name: None if value is NULL else value for name, value in vars(self).items()}


def sort_key(row: RunRow) -> tuple[Any, ...]:
    """Return the sort key of a row: by run, start before end."""
    return (row.run_order or 0, row.started_at, row.run_id, row.status != "started")


def erased_versions(rows: Iterable[RunRow], table_ids: Mapping[str, str]) -> dict[str, int]:
    """Return each table's version of its newest erasure, by `Source.key`.

    Older versions contain rows of an erased user. `table_ids` are the ids of the tables now. Erasures from a
    former table at the same place are skipped.
    """
    found: dict[str, int] = {}
    for row in rows:
        if row.step == "forget" and row.status == "done":
            for key, written in row.outputs.items():
                if is_same_table(row, key, table_ids):
                    found[key] = max(written.version, found.get(key, 0))
    return found


def is_same_table(row: RunRow, key: str, table_ids: Mapping[str, str]) -> bool:
    """Return whether a record is about the table in `table_ids`.

    Records of older versions have no ids and count as the same.
    """
    return row.table_ids is None or row.table_ids.get(key) == table_ids.get(key)


def as_run_row(values: Mapping[str, object]) -> RunRow:
    """Return a row of the table as a `RunRow` with UTC times."""
    nulls = {name: NULL for name in MAPS if values.get(name) is None}
    row = RunRow(**{**values, **nulls})  # type: ignore[arg-type]
    outputs = row.outputs and {table: Written(*written) for table, written in row.outputs.items()}
    finished_at = row.finished_at and row.finished_at.astimezone(timezone.utc)
    started_at = row.started_at.astimezone(timezone.utc)
    return replace(row, started_at=started_at, finished_at=finished_at, outputs=outputs)


def versions_with_rows(tables: Tables, row: RunRow) -> Mapping[str, int] | None:
    """Return by table a version with the record's rows, or None.

    None means that a table has other rows. Records of version 0.1.0 have no outputs, which gives None.
    """
    versions = {}
    for table, written in row.outputs.items():
        newest = tables.newest(table)
        if newest is None:
            return None
        # The newest version, if the record names it and the same table, needs no look. Later versions are
        # read.
        is_same = (row.table_ids or {}).get(table) == tables.table_id(table)
        if newest != written.version or not is_same:
            assert row.run_date is not None
            found = tables.written(table, row.run_date, newest)
            if found[1:] != written[1:]:
                return None
        versions[table] = newest
    return versions or None

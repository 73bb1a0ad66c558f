"""The rows of the table `runs`: what ran, on what, with what outcome.

A step adds a row when it begins and one when it ends. Rows are only ever added, so that runs at work at the
same time never meet there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timezone
from types import MappingProxyType
from typing import Any

from allmrec.tables.delta import Tables, Written

MAX_MESSAGE = 2000
"""Characters of an error that `runs.message` holds at most."""
NIGHT = ("sequences", "candidates", "score", "publish")
"""The steps of a night, in order."""
MAPS = ("input_versions", "counts", "timings", "figures", "outputs", "gates")
"""The maps of `RunRow` that a row of `runs` may have as null."""
NULL: Mapping[str, Any] = MappingProxyType({})
"""The null of a map in `runs`: readers find it empty, and it is stored as null again."""


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
    """What went wrong, where the status is failed."""
    run_order: int | None = None
    outputs: Mapping[str, Written] = field(default_factory=_null)
    """What the step left in each table."""
    gates: Mapping[str, float] = field(default_factory=_null)
    overridden: list[str] | None = None
    llm_dtype: str | None = None
    table_ids: Mapping[str, str] | None = None
    """Delta's id of every table that was read or written; None from an older version."""
    broken: list[str] | None = None
    """The rules by which the step failed; None in rows of older versions, whose `message` names them."""

    def columns(self) -> dict[str, Any]:
        """Return the values as they are stored, by column."""
        return {name: None if value is NULL else value for name, value in vars(self).items()}


def place(row: RunRow) -> tuple[Any, ...]:
    """Return the place of a row among those of its date: newest run last, a step's end after its start."""
    return (row.run_order or 0, row.started_at, row.run_id, row.status != "started")


def erased_versions(rows: Iterable[RunRow], table_ids: Mapping[str, str]) -> dict[str, int]:
    """Return, by `Source.key`, the version of each table before which it holds rows of an erased user.

    `table_ids` are those of the tables as they are now. Erasures from a table that was at the same place
    before are left out.
    """
    found: dict[str, int] = {}
    for row in rows:
        if row.step == "forget" and row.status == "done":
            for key, written in row.outputs.items():
                if is_same_table(row, key, table_ids):
                    found[key] = max(written.version, found.get(key, 0))
    return found


def is_same_table(row: RunRow, key: str, table_ids: Mapping[str, str]) -> bool:
    """Return whether a record is about the table that `table_ids` has under a key.

    A record of an older version, without ids, is believed.
    """
    return row.table_ids is None or row.table_ids.get(key) == table_ids.get(key)


def as_run_row(values: Mapping[str, object]) -> RunRow:
    """Return a row of the table as a `RunRow`; its times are UTC, where Spark's are without a zone."""
    nulls = {name: NULL for name in MAPS if values.get(name) is None}
    row = RunRow(**{**values, **nulls})  # type: ignore[arg-type]
    outputs = row.outputs and {table: Written(*written) for table, written in row.outputs.items()}
    finished_at = row.finished_at and row.finished_at.astimezone(timezone.utc)
    started_at = row.started_at.astimezone(timezone.utc)
    return replace(row, started_at=started_at, finished_at=finished_at, outputs=outputs)


def versions_with_rows(tables: Tables, row: RunRow) -> Mapping[str, int] | None:
    """Return a version of each of the step's tables that holds the record's rows; None where one has others.

    A record without outputs, as version 0.1.0 left it, cannot be believed.
    """
    versions = {}
    for table, written in row.outputs.items():
        newest = tables.newest(table)
        if newest is None:
            return None
        # A version that is still the newest holds what was just written, if it is the same table's. Later
        # ones are looked into.
        is_same = (row.table_ids or {}).get(table) == tables.table_id(table)
        if newest != written.version or not is_same:
            assert row.run_date is not None
            found = tables.written(table, row.run_date, newest)
            if found[1:] != written[1:]:
                return None
        versions[table] = newest
    return versions or None

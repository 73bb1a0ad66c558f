"""Maintenance of Delta tables: delete dates, compact files, vacuum old versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

import pandas as pd
from delta.tables import DeltaTable
from pyspark.sql import functions as F

from allmrec.spark import filesystem
from allmrec.spark.troubles import explained
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES
from allmrec.tables.sql_text import delta_at

SMALL_FILE_BYTES = 32 * 2**20
"""Files below this size are compacted.

Larger files stay, because pinned versions would keep a second copy.
"""
_HOURS = {"delta.deletedFileRetentionDuration": 168, "delta.logRetentionDuration": 720}
"""The properties that set a table's history, and Delta's defaults in hours."""
_CHECKPOINT_INTERVAL = 10
_STEP_HOURS = 720
"""A longer history is kept in steps of this length, so that the property rarely changes."""


class Files(NamedTuple):
    """Number and size of deleted files."""

    num_files: int
    num_bytes: int


class Age(NamedTuple):
    """How long ago a version of a table was current."""

    files: timedelta
    """Since the next version was committed. From then on VACUUM may delete the version's files."""
    log: timedelta
    """Since the checkpoint was written that the version is read from, at most."""


def run_dates(tables: Tables, name: str) -> set[date]:
    """Return the run dates of a nightly table. Raises TableError as `Tables.read` does."""
    return {row[0] for row in tables.read(name).select("run_date").distinct().collect()}


def count_dates(tables: Tables, name: str, dates: Collection[date]) -> int:
    """Return how many rows of a nightly table have these run dates."""
    return tables.read(name).where(F.col("run_date").isin(*dates)).count()


def delete_dates(tables: Tables, name: str, dates: Collection[date]) -> None:
    """Delete the rows of these run dates in one commit.

    Raises PassingError on a conflict with another run. The deletion is not retried, because the other run
    wrote newer rows.
    """
    with explained(name, tables.path(name)):
        DeltaTable.forPath(tables.spark, tables.path(name)).delete(F.col("run_date").isin(*dates))


def delete_where_in(tables: Tables, name: str, column: str, values: Collection[str]) -> int:
    """Delete the rows whose `column` is in `values`. Return their number.

    No commit is made if no row matches. The commit does not contain the values, unlike that of a condition.
    Raises PassingError where every try conflicted with another commit.
    """
    source = tables.spark.createDataFrame(pd.DataFrame({column: list(values)}), f"`{column}` string")
    num_rows = tables.read_as_it_is(name).join(source, column, "left_semi").count()
    if num_rows:
        condition = f"target.`{column}` = source.`{column}`"
        tables.retried(
            name,
            lambda: (
                DeltaTable.forPath(tables.spark, tables.path(name))
                .alias("target")
                .merge(source.alias("source"), condition)
                .whenMatchedDelete()
                .execute()
            ),
        )
    return num_rows


def compact(tables: Tables, name: str, but: Collection[date]) -> tuple[int, int]:
    """Compact small files; return (files before, files after). Skips the dates `but` of nightly tables.

    Raises PassingError where every try conflicted with another commit.
    """

    def optimize() -> tuple[int, int]:
        # Delta's builder does not escape a backtick in the path.
        statement = f"OPTIMIZE {delta_at(tables.path(name))}"
        if but and TABLES[name].partitioned_by:
            days = ", ".join(f"DATE'{day}'" for day in sorted(but))
            statement += f" WHERE run_date NOT IN ({days})"
        metrics = tables.spark.sql(statement).select("metrics.*").collect()[0]
        return metrics["numFilesRemoved"], metrics["numFilesAdded"]

    with _setting(tables, "spark.databricks.delta.optimize.minFileSize", SMALL_FILE_BYTES):
        return tables.retried(name, optimize)


def age(tables: Tables, name: str, version: int) -> Age:
    """Return how long ago a version was current. Versions older than the history count as its oldest."""
    history = DeltaTable.forPath(tables.spark, tables.path(name)).history()
    times = {row["version"]: row["timestamp"] for row in history.select("version", "timestamp").collect()}
    now = datetime.now(timezone.utc)

    def since(number: int) -> timedelta:
        first = min((known for known in times if known >= number), default=None)
        return timedelta(0) if first is None else now - times[first].astimezone(timezone.utc)

    return Age(since(version + 1), since(version - _CHECKPOINT_INTERVAL))


def keep_history(tables: Tables, name: str, vacuum_hours: int, oldest: Age | None) -> None:
    """Keep old versions for `vacuum_hours`, or longer if `oldest` is needed.

    The period is stored in the table's properties, which VACUUM and Delta read; Delta's default is 30 days.
    The properties are written only when they change.
    """
    file_hours = _in_steps(vacuum_hours, oldest.files if oldest else timedelta(0))
    log_hours = _in_steps(max(720, vacuum_hours), oldest.log if oldest else timedelta(0))
    [(found,)] = DeltaTable.forPath(tables.spark, tables.path(name)).detail().select("properties").collect()
    changed = {
        key: f"interval {hours} hours"
        for (key, default), hours in zip(_HOURS.items(), (file_hours, log_hours), strict=True)
        if found.get(key, f"interval {default} hours") != f"interval {hours} hours"
    }
    if changed:
        properties = ", ".join(f"'{key}' = '{value}'" for key, value in changed.items())
        statement = f"ALTER TABLE {delta_at(tables.path(name))} SET TBLPROPERTIES ({properties})"
        tables.retried(name, lambda: tables.spark.sql(statement))


def vacuum(tables: Tables, name: str, dry_run: bool) -> Files:
    """Delete the files that only versions older than the table's history need.

    Returns their number and size. No commit is made if there are none. With `dry_run` no file is deleted.
    """
    statement = f"VACUUM {delta_at(tables.path(name))}"
    # Delta lists folders in this many tasks, whatever their number; Spark's default is 10,000.
    parallelism = tables.spark.sparkContext.defaultParallelism
    with _setting(tables, "spark.sql.sources.parallelPartitionDiscovery.parallelism", parallelism):
        found = tables.retried(name, lambda: tables.spark.sql(f"{statement} DRY RUN").collect())
        lengths = filesystem.file_lengths(tables.spark, [row["path"] for row in found])
        if lengths and not dry_run:
            tables.retried(name, lambda: tables.spark.sql(statement).collect())
    return Files(len(lengths), sum(lengths))


@contextmanager
def _setting(tables: Tables, name: str, value: int) -> Iterator[None]:
    """Change a setting of the session during the block."""
    before = tables.spark.conf.get(name, None)
    tables.spark.conf.set(name, str(value))
    try:
        yield
    finally:
        if before is None:
            tables.spark.conf.unset(name)
        else:
            tables.spark.conf.set(name, before)


def _in_steps(hours: int, needed: timedelta) -> int:
    """Return `hours`, or, if `needed` is longer, whole steps of 30 days."""
    steps = -(-needed // timedelta(hours=_STEP_HOURS))
    return hours if needed <= timedelta(hours=hours) else max(hours, steps * _STEP_HOURS)

"""The only reader and writer of Delta tables: checked reads at a pinned version, one commit a run date, merges that know when nothing changed."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.errors import TableError
from allmrec.tables import filesystem
from allmrec.tables.schemas import TABLES, TableSpec

_T = TypeVar("_T")
_COMMIT = re.compile(r"(\d{20})\.json")
_HOW_TO_GET = {
    "interactions": "import it (`allmrec import`) or set tables.root",
    "items": "import it (`allmrec import`) or set tables.root",
    "user_sequences": "run `allmrec sequences` for that date first",
    "candidates": "run `allmrec candidates` for that date first",
    "recommendations": "run `allmrec score` for that date first",
}

_TROUBLES = {
    "CHECK constraint EXPRESSION": "a row belongs to another run date",
    "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES": "a row breaks a constraint",
    "DELTA_NOT_NULL_CONSTRAINT_VIOLATED": "a row has no value where one must be",
    "NOT_NULL_CONSTRAINT_VIOLATION": "a row has no value where one must be",
    "DELTA_REPLACE_WHERE_MISMATCH": "a row belongs to another run date",
    "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE": "the rows to be written hold a key twice",
    "FAILED_READ_FILE.FILE_NOT_EXIST": "half-written: a data file that its log names is missing",
    "DELTA_TRUNCATED_TRANSACTION_LOG": "half-written: its transaction log has gaps",
    "DELTA_VERSIONS_NOT_CONTIGUOUS": "half-written: its transaction log has gaps",
    "DELTA_LOG_FILE_NOT_FOUND": "half-written: its transaction log has gaps",
    "DELTA_NO_RECREATABLE_HISTORY_FOUND": "half-written: its transaction log has gaps",
    "DELTA_STATE_RECOVER_ERROR": "half-written: its transaction log is damaged",
    "DELTA_SCHEMA_NOT_SET": "half-written: its transaction log has no schema",
    "MALFORMED_RECORD_IN_PARSING": "half-written: its transaction log is damaged",
    "No space left on device": "the disk is full",
}
"""What Delta's and Spark's own words mean here; matched in this order."""


def read_delta_folder(spark: SparkSession, uri: str) -> DataFrame:
    """Return the Delta table in any folder, as it is: for imports of other people's tables. Raises TableError where it cannot be read."""
    try:
        return spark.read.format("delta").load(uri)
    except PySparkException as error:
        raise TableError(f"{uri}: no readable Delta table: {str(error).splitlines()[0]}") from error


class Tables:
    """The tables below one root folder."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self.root = filesystem.absolute(spark, root.rstrip("/") or root)
        self._created: set[str] = set()

    def path(self, name: str) -> str:
        """Return the folder of the table `name`."""
        return f"{self.root}/{_spec(name).name}"

    def exists(self, name: str) -> bool:
        """Return whether the table is there. Raises TableError where its folder holds files but no transaction log."""
        return self._newest_commit(name) is not None

    def version(self, name: str) -> int:
        """Return the table's newest version. Raises TableError where it is missing or half-written."""
        newest = self._newest_commit(name)
        if newest is None:
            hint = _HOW_TO_GET.get(name, "run the step that writes it first")
            raise TableError(f"{name}: no Delta table at {self.path(name)}, expected one; {hint}")
        return newest

    def create(self, name: str) -> None:
        """Create the table where it is missing; an owned one with its NOT NULL and CHECK constraints."""
        if name in self._created:
            return
        spec = _spec(name)
        if not self.exists(name):
            columns = spec.schema
            if not spec.owned:
                columns = T.StructType(
                    [T.StructField(column.name, column.dataType) for column in spec.schema]
                )
            builder = (
                DeltaTable.createIfNotExists(self.spark)
                .location(self.path(name))
                .addColumns(columns)
                .partitionedBy(*spec.partitioned_by)
            )
            for constraint, expression in spec.constraints.items():
                # As a property the constraint is part of the one commit that creates the table: there is never a table without it.
                builder = builder.property(f"delta.constraints.{constraint}", expression)
            builder.execute()
        self._created.add(name)

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Return the table at `version` (the newest by default) with exactly its specified columns.

        Columns of an input table that may be missing are null. Raises TableError where the table is missing, half-written, or has other
        columns or types.
        """
        frame = self._read(name, version)
        self._check_files(name, frame)
        return frame

    def read_date(self, name: str, run_date: dt.date) -> DataFrame:
        """Return the rows of one run date of a nightly table; empty where there are none."""
        frame = self._read(name, None).where(F.col("run_date") == F.lit(run_date))
        self._check_files(name, frame)
        return frame

    def replace_date(self, name: str, rows: DataFrame, run_date: dt.date) -> None:
        """Replace all rows of `run_date` by `rows` in one commit, creating the table first. A missing run_date column is added.

        Raises TableError where the columns or types are wrong, a constraint is broken, or a row is of another date.
        """
        self.create(name)
        if "run_date" not in rows.columns:
            rows = rows.withColumn("run_date", F.lit(run_date).cast("date"))
        writer = self._conform(name, rows).write.format("delta").mode("overwrite")
        self._run(
            name,
            lambda: writer.option("replaceWhere", f"run_date = DATE'{run_date.isoformat()}'").save(
                self.path(name)
            ),
        )

    def overwrite(self, name: str, rows: DataFrame) -> None:
        """Replace the whole table by `rows` in one commit, creating it first. Raises TableError as `replace_date` does."""
        self.create(name)
        writer = self._conform(name, rows).write.format("delta").mode("overwrite")
        self._run(name, lambda: writer.save(self.path(name)))

    def merge(self, name: str, rows: DataFrame, update: bool = True) -> int:
        """Merge `rows` by the table's key: insert new ones and, with `update`, change those that differ. Return how many rows were written.

        No commit is made where nothing changes. `rows` hold every key at most once. Raises TableError as `replace_date` does.
        """
        fresh = not self.exists(name)
        self.create(name)
        spec = _spec(name)
        rows = self._conform(name, rows)
        if fresh:
            return self._run(name, lambda: self._append(name, rows))
        target = self._conform(name, self._read(name, None))
        changes = rows.join(target, list(spec.key), "left_anti")
        others = [column for column in spec.schema if column.name not in spec.key]
        if update and others:
            old = target.withColumnsRenamed({column.name: f"_old_{column.name}" for column in others})
            same = F.lit(True)
            for column in others:
                same = same & _comparable(F.col(column.name), column).eqNullSafe(
                    _comparable(F.col(f"_old_{column.name}"), column)
                )
            changes = rows.join(old.withColumn("_known", F.lit(True)), list(spec.key), "left")
            changes = changes.where(F.col("_known").isNull() | ~same).select(*rows.columns)
        changes = changes.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            return self._run(name, lambda: self._merge_changes(name, changes, update))
        finally:
            changes.unpersist()

    def _append(self, name: str, rows: DataFrame) -> int:
        """Write the first rows of a new table, all in one commit, none where there are no rows; return how many."""
        rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            written = rows.count()
            if written:
                rows.write.format("delta").mode("append").save(self.path(name))
            return written
        finally:
            rows.unpersist()

    def put(self, name: str, row: Mapping[str, Any]) -> None:
        """Insert one row, or replace the one of its key (texts), in one commit: for a run's own record. Columns that are not given are null."""
        self.create(name)
        spec = _spec(name)
        frame = self.spark.createDataFrame(
            [tuple(row.get(column) for column in spec.schema.fieldNames())], spec.schema
        )
        key = " AND ".join(f"{column} = '{_quoted(row[column])}'" for column in spec.key)
        self._run(
            name,
            lambda: (
                frame.write.format("delta")
                .mode("overwrite")
                .option("replaceWhere", key)
                .save(self.path(name))
            ),
        )

    def _merge_changes(self, name: str, changes: DataFrame, update: bool) -> int:
        written = changes.count()
        if written:
            on = " AND ".join(f"target.`{key}` = source.`{key}`" for key in _spec(name).key)
            target = DeltaTable.forPath(self.spark, self.path(name)).alias("target")
            merge = target.merge(changes.alias("source"), on).whenNotMatchedInsertAll()
            (merge.whenMatchedUpdateAll() if update else merge).execute()
        return written

    def _newest_commit(self, name: str) -> int | None:
        names = filesystem.list_names(self.spark, self.path(name))
        commits = [
            int(found.group(1))
            for found in map(
                _COMMIT.fullmatch, filesystem.list_names(self.spark, f"{self.path(name)}/_delta_log")
            )
            if found
        ]
        if commits:
            return max(commits)
        if names:
            raise TableError(
                f"{name}: half-written: {self.path(name)} holds files but no Delta commit, expected a Delta table; move them away"
            )
        return None

    def _read(self, name: str, version: int | None) -> DataFrame:
        newest = self.version(name)
        version = newest if version is None else version
        if version > newest:
            raise TableError(
                f"{name}: version {version} asked, but {self.path(name)} ends at version {newest}"
            )
        reader = self.spark.read.format("delta").option("versionAsOf", version)
        return self._run(name, lambda: _select(_spec(name), reader.load(self.path(name)), self.path(name)))

    def _check_files(self, name: str, frame: DataFrame) -> None:
        """Raise TableError now, not in the middle of a job, where the log names files that are gone."""
        by_folder: dict[str, set[str]] = defaultdict(set)
        for uri in self._run(name, frame.inputFiles):
            folder, _, file = uri.rpartition("/")
            by_folder[folder].add(file)
        for folder, expected in by_folder.items():
            lost = expected - set(filesystem.list_names(self.spark, folder))
            if lost:
                raise TableError(
                    f"{name}: half-written: {len(lost)} data files that its log names are missing below {self.path(name)} (first: {min(lost)}); "
                    "restore them, or restore the table from its source"
                )

    def _conform(self, name: str, rows: DataFrame) -> DataFrame:
        """Return `rows` with the table's columns in its order; raise TableError where a column is missing, extra or of another type."""
        spec = _spec(name)
        extra = sorted(set(rows.columns) - set(spec.schema.fieldNames()))
        if extra:
            raise TableError(
                f"{name}: columns {', '.join(extra)} to be written, which the table does not have; drop them"
            )
        return _select(spec, rows, "the rows to be written", widen=False)

    def _run(self, name: str, action: Callable[[], _T]) -> _T:
        """Run `action`; what Delta or Spark says about the table's state becomes a one-line TableError."""
        try:
            return action()
        except (PySparkException, Py4JJavaError) as error:
            told = str(error)
            for sign, meaning in _TROUBLES.items():
                if sign in told:
                    raise TableError(
                        f"{name}: {meaning}: {_first_line(told, sign)} ({self.path(name)})"
                    ) from error
            raise


def _spec(name: str) -> TableSpec:
    if name not in TABLES:
        raise TableError(f"{name}: no such table, expected one of {', '.join(TABLES)}")
    return TABLES[name]


def _select(spec: TableSpec, frame: DataFrame, where: str, widen: bool = True) -> DataFrame:
    """Return the specified columns of `frame`, in order. `widen` takes any number for a DOUBLE, and null for a column that may be missing."""
    found = {column.name: column.dataType for column in frame.schema}
    columns: list[Column] = []
    for column in spec.schema:
        expected, actual = column.dataType.simpleString(), found.get(column.name)
        if actual is None:
            if not column.nullable or (spec.owned and widen):
                raise TableError(
                    f"{spec.name}: no column {column.name} in {where}, expected {column.name} {expected}; add it"
                )
            columns.append(F.lit(None).cast(column.dataType).alias(column.name))
        elif actual.simpleString() == expected:
            columns.append(F.col(f"`{column.name}`"))
        elif widen and expected == "double" and isinstance(actual, T.NumericType):
            columns.append(F.col(f"`{column.name}`").cast("double"))
        else:
            raise TableError(
                f"{spec.name}: column {column.name} is {actual.simpleString()} in {where}, expected {expected}; cast it"
            )
    return frame.select(*columns)


def _comparable(value: Column, column: T.StructField) -> Column:
    """Spark compares everything but maps; those compare as their sorted entries."""
    return F.array_sort(F.map_entries(value)) if isinstance(column.dataType, T.MapType) else value


def _quoted(text: str) -> str:
    """Return a text as it stands inside a SQL literal."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _first_line(told: str, sign: str) -> str:
    """Return the line of a long message that holds `sign`, shortened."""
    line = next(line for line in told.splitlines() if sign in line).strip()
    return line if len(line) <= 300 else line[:297] + "..."

"""The only reader and writer of Delta tables.

A read is checked, and of one version. A run date is replaced in one commit, which fails after that of a newer
run. A merge without changes makes no commit. Commits that conflict are retried.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

from delta.tables import DeltaTable
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.errors import ConfigError, SupersededError, TableError
from allmrec.spark import filesystem
from allmrec.spark.cached_frames import CachedFrames
from allmrec.spark.troubles import explained, is_conflict
from allmrec.tables import delta_log
from allmrec.tables.changes import changed_rows, same_key
from allmrec.tables.conforming import as_read, to_write
from allmrec.tables.creation import create_table
from allmrec.tables.migration import migrate
from allmrec.tables.schemas import TABLES
from allmrec.tables.specification import TableSpec
from allmrec.tables.sql_text import quoted

Result = TypeVar("Result")

_COMMIT_MARK = "spark.databricks.delta.commitInfo.userMetadata"
MAX_TRIES = 12
"""How often a conflicting commit is tried."""
_HOW_TO_GET = {
    "interactions": "import it (`allmrec import`) or set tables.root",
    "items": "import it (`allmrec import`) or set tables.root",
    "user_sequences": "run `allmrec sequences` for that date first",
    "candidates": "run `allmrec candidates` for that date first",
    "recommendations": "run `allmrec score` for that date first",
}


class Written(NamedTuple):
    """The rows of one run date, as a step records them."""

    version: int
    """A version of the table that contains the rows."""
    num_rows: int
    digest: str
    """Sum of the rows' hashes."""


def read_delta_folder(spark: SparkSession, uri: str) -> DataFrame:
    """Return the Delta table in any folder with its own columns.

    Raises TableError where the table cannot be read.
    """
    try:
        return spark.read.format("delta").load(uri)
    except PySparkException as error:
        raise TableError(f"{uri}: no readable Delta table: {str(error).splitlines()[0]}") from error


def has_files(spark: SparkSession, read: Callable[[], DataFrame]) -> bool:
    """Return whether all files of the frame exist. VACUUM deletes those of old versions."""
    try:
        uris = read().inputFiles()
    except (PySparkException, Py4JJavaError, TableError):
        return False
    folders = {uri.rpartition("/")[0] for uri in uris}
    there = {f"{folder}/{file}" for folder in folders for file in filesystem.list_names(spark, folder)}
    return set(uris) <= there


class Tables:
    """The tables below one root folder.

    Methods raise TableError where `TABLES` has no table of the given name.

    Parameters
    ----------
    spark: the session.
    root: the folder, as a path or a URI that Hadoop knows.
    schema_name: a schema of Spark's catalogue that gets the names of written tables; None: no schema.

    Raises ConfigError where the schema does not exist.
    """

    def __init__(self, spark: SparkSession, root: str, schema_name: str | None = None) -> None:
        self.spark = spark
        self.schema_name = schema_name
        if schema_name is not None and not spark.catalog.databaseExists(schema_name):
            raise ConfigError(
                f"tables.schema_name: {schema_name}, expected a schema of Spark's catalogue; create it first"
            )
        self.root = filesystem.absolute(spark, root.rstrip("/") or root)
        self._created: set[str] = set()

    def path(self, name: str) -> str:
        """Return the folder of the table `name`. Raises TableError where the name is unknown."""
        return f"{self.root}/{_spec(name).name}"

    def exists(self, name: str) -> bool:
        """Return whether the table exists. Raises TableError where its folder has files but no commit."""
        return self.newest(name) is not None

    def newest(self, name: str) -> int | None:
        """Return the newest version, or None if the table is missing. Raises TableError as `exists` does."""
        with self._explained(name):
            return delta_log.newest_version(self.spark, name, self.path(name))

    def table_id(self, name: str) -> str:
        """Return Delta's id of the table. Another table at its path has another id.

        Raises TableError where the table is missing or half-written.
        """
        self.version(name)
        with self._explained(name):
            return delta_log.table_id(self.spark, self.path(name))

    def version(self, name: str) -> int:
        """Return the table's newest version. Raises TableError where it is missing or half-written."""
        newest = self.newest(name)
        if newest is None:
            advice = _HOW_TO_GET.get(name, "run the step that writes it first")
            raise TableError(f"{name}: no Delta table at {self.path(name)}, expected one; {advice}")
        return newest

    def version_at(self, name: str, moment: dt.datetime) -> int | None:
        """Return the last readable version before `moment` (with a zone), or None.

        Raises TableError where the table is missing.
        """
        self.version(name)
        with self._explained(name):
            version = delta_log.version_at(DeltaTable.forPath(self.spark, self.path(name)), moment)
        if version is None or not has_files(self.spark, lambda: self.read(name, version)):
            return None
        return version

    @contextmanager
    def marked_commits(self, mark: Mapping[str, Any]) -> Iterator[None]:
        """Write `mark` as JSON into the `userMetadata` of the block's commits."""
        self.spark.conf.set(_COMMIT_MARK, json.dumps(mark, sort_keys=True))
        try:
            yield
        finally:
            try:
                self.spark.conf.unset(_COMMIT_MARK)
            except (Py4JError, OSError):
                # Spark's JVM has ended, and the setting with it. The error that ended it must stay visible.
                pass

    def create(self, name: str) -> None:
        """Create the table if it is missing. An owned table gets NOT NULL and CHECK constraints.

        A table of an older version of this program gets the newer columns. Raises TableError where the folder
        has files but no commit, or the name in the catalogue belongs to another table.
        """
        if name in self._created:
            return
        spec = _spec(name)
        if not self.exists(name):
            self.retried(name, lambda: create_table(self.spark, spec, self.path(name)))
        elif spec.owned:
            self.retried(name, lambda: migrate(self.spark, spec, self.path(name)))
        if self.schema_name is not None:
            self.retried(name, lambda: self._give_name(f"{self.schema_name}.{name}", self.path(name)))
        self._created.add(name)

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Return the specified columns of the table at `version` (default: the newest).

        Missing optional columns are null. Raises TableError where the table is missing or half-written, or
        has other columns or types.
        """
        frame = self.read_as_it_is(name, version)
        with self._explained(name):
            return as_read(_spec(name), frame, self.path(name))

    def read_as_it_is(self, name: str, version: int | None = None) -> DataFrame:
        """Return the table at `version` (default: the newest) with all its columns.

        Raises TableError where the table is missing or half-written.
        """
        newest = self.version(name)
        version = newest if version is None else version
        path = self.path(name)
        if version > newest:
            raise TableError(f"{name}: version {version} asked, but {path} ends at version {newest}")
        with self._explained(name):
            return self.spark.read.format("delta").option("versionAsOf", version).load(path)

    def read_date(self, name: str, run_date: dt.date, version: int | None = None) -> DataFrame:
        """Return the rows of one run date of a nightly table. Raises TableError as `read` does."""
        return self.read(name, version).where(F.col("run_date") == F.lit(run_date))

    def written(self, name: str, run_date: dt.date, version: int | None = None) -> Written:
        """Return version, number and digest of a date's rows. Raises TableError as `read` does."""
        version = self.version(name) if version is None else version
        sums = self.read_date(name, run_date, version).agg(*_sums()).first()
        assert sums is not None
        return Written(version, sums[0], str(sums[1] or 0))

    def written_dates(self, name: str) -> dict[dt.date, Written]:
        """Return the rows' version, number and digest by run date. Raises TableError as `read` does."""
        version = self.version(name)
        groups = digests_by_date(self.read(name, version))
        return {day: Written(version, number, digest) for day, (number, digest) in groups.items()}

    def replace_date(self, name: str, rows: DataFrame, run_date: dt.date, order: int) -> Written:
        """Replace all rows of `run_date` by `rows` in one commit. Creates the table first.

        `order` is the run's number among those of this date. A missing column `run_date` is added. Raises
        SupersededError where a run with a higher number has committed, before or meanwhile; TableError where
        columns or types are wrong, a constraint is broken, or a row is of another date; PassingError where
        every try conflicted with another commit.
        """
        self.create(name)
        if "run_date" not in rows.columns:
            rows = rows.withColumn("run_date", F.lit(run_date).cast("date"))
        application = f"allmrec/{run_date.isoformat()}"
        writer = to_write(_spec(name), rows).write.format("delta").mode("overwrite")
        writer = writer.option("replaceWhere", f"run_date = DATE'{run_date.isoformat()}'")
        writer = writer.option("txnAppId", application).option("txnVersion", order)
        # The session sets the size of files, so that it does not depend on the number of tasks.
        writer = writer.option("optimizeWrite", "true")
        self.retried(name, lambda: writer.save(self.path(name)))
        with self._explained(name):
            version, newest_order = delta_log.transaction(self.spark, self.path(name), application)
        if newest_order != order:
            raise SupersededError(f"{name} of {run_date}: a newer run wrote it meanwhile")
        return self.written(name, run_date, version)

    def replace_where(self, name: str, rows: DataFrame, condition: str) -> None:
        """Replace the rows that meet a condition (SQL) by `rows`.

        Creates the table first, then makes one commit. Raises like `replace_date`.
        """
        self.create(name)
        writer = to_write(_spec(name), rows).write.format("delta").mode("overwrite")
        self.retried(name, lambda: writer.option("replaceWhere", condition).save(self.path(name)))

    def append(self, name: str, *rows: Mapping[str, Any]) -> None:
        """Add rows in one commit; creates the table first. Missing columns are null.

        Appends of several runs never conflict. Raises TableError as `replace_date` does.
        """
        self.create(name)
        spec = _spec(name)
        # Spark would start a Python worker for rows of Python; it reads JSON by itself.
        values = [
            {column.name: _as_json(row.get(column.name), column.type) for column in spec.columns}
            for row in rows
        ]
        text = F.lit(json.dumps(values))
        parsed = F.from_json(text, T.ArrayType(spec.schema), {"mode": "FAILFAST"})
        frame = self.spark.range(1, numPartitions=1).select(F.inline(parsed))
        self.retried(name, lambda: frame.write.format("delta").mode("append").save(self.path(name)))

    def merge(self, name: str, rows: DataFrame, update: bool = True) -> int:
        """Insert `rows` with new keys, with `update` change the others. Return their number.

        No commit is made if all rows are unchanged. `rows` have every key at most once. Raises TableError
        where a key occurs twice, and as `replace_date` does.
        """
        self.create(name)
        spec = _spec(name)
        rows = to_write(spec, rows)
        return self.retried(name, lambda: self._merge_changes(spec, rows, update))

    def _give_name(self, name: str, path: str) -> None:
        """Name the table at `path` in the catalogue. Raises TableError where the name is taken."""
        self.spark.sql(f"CREATE TABLE IF NOT EXISTS {name} USING delta LOCATION {quoted(path)}")
        tables = (DeltaTable.forName(self.spark, name), DeltaTable.forPath(self.spark, path))
        [(named, location), (ours, _)] = (
            table.detail().select("id", "location").collect()[0] for table in tables
        )
        if named != ours:
            raise TableError(f"{name}: is the table at {location}, expected {path}; drop it or rename it")

    def _merge_changes(self, spec: TableSpec, rows: DataFrame, update: bool) -> int:
        """Merge the rows that differ from the newest version. Return their number."""
        with CachedFrames() as frames:
            changes = changed_rows(spec, rows, self.read(spec.name), update)
            changes = frames.keep(changes, StorageLevel.MEMORY_AND_DISK)
            num_rows = changes.count()
            if num_rows:
                self._merge(spec, changes, update)
            return num_rows

    def _merge(self, spec: TableSpec, changes: DataFrame, update: bool) -> None:
        """Insert `changes` in one commit. With `update` replace the rows with their keys."""
        condition = F.lit(True)
        for name in spec.key:
            condition = condition & same_key(spec, name, F.col(f"target.{name}"), F.col(f"source.{name}"))
        target = DeltaTable.forPath(self.spark, self.path(spec.name)).alias("target")
        merge = target.merge(changes.alias("source"), condition).whenNotMatchedInsertAll()
        (merge.whenMatchedUpdateAll() if update else merge).execute()

    def retried(self, name: str, commit: Callable[[], Result]) -> Result:
        """Return the result of `commit`, which is retried on conflicts.

        Raises PassingError where every try conflicts, and as `explained` does for other faults of the table.
        """
        with self._explained(name):
            for tries in range(1, MAX_TRIES + 1):
                try:
                    return commit()
                except (PySparkException, Py4JJavaError) as error:
                    if tries == MAX_TRIES or not is_conflict(error):
                        raise
                # Random waits keep two runs that conflicted from conflicting again.
                time.sleep(random.uniform(0, min(0.1 * 2**tries, 5.0)))
            raise AssertionError("unreachable")

    def _explained(self, name: str) -> AbstractContextManager[None]:
        """Return a context that turns Delta's errors about the table into UserErrors."""
        return explained(name, self.path(name))


def digests_by_date(rows: DataFrame) -> dict[dt.date, tuple[int, str]]:
    """Return number and digest of the rows by run date."""
    groups = rows.groupBy("run_date").agg(*_sums()).collect()
    return {day: (number, str(digest or 0)) for day, number, digest in groups}


def _sums() -> tuple[Column, Column]:
    """Return the aggregates that identify rows: number, sum of hashes."""
    return F.count(F.lit(1)), row_digest()


def row_digest() -> Column:
    """Return the sum of the rows' hashes, whatever their order. Null without rows."""
    return F.sum(F.xxhash64("*").cast("decimal(38,0)"))


def _as_json(value: Any, kind: T.DataType) -> Any:
    """Return a value of a Spark type for `json.dumps`."""
    if value is None:
        return None
    if isinstance(kind, T.StructType):
        fields = value if isinstance(value, Mapping) else dict(zip(kind.names, value, strict=True))
        return {field.name: _as_json(fields[field.name], field.dataType) for field in kind}
    if isinstance(kind, T.MapType):
        return {key: _as_json(one, kind.valueType) for key, one in value.items()}
    if isinstance(kind, T.ArrayType):
        return [_as_json(one, kind.elementType) for one in value]
    return value.isoformat() if isinstance(value, dt.date) else value


def _spec(name: str) -> TableSpec:
    """Return the specification of a table. Raises TableError where the name is unknown."""
    if name not in TABLES:
        raise TableError(f"{name}: no such table, expected one of {', '.join(TABLES)}")
    return TABLES[name]

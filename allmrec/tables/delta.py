"""The only reader and writer of Delta tables.

Reads are checked and of one version, a run date is replaced in one commit that a newer run's cannot follow,
and a merge that changes nothing makes no commit. A commit that met another one is tried again.
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

from allmrec.errors import ConfigError, SupersededError, TableError
from allmrec.tables import delta_log, filesystem
from allmrec.tables.cached_frames import CachedFrames
from allmrec.tables.changes import changed_rows, same_key
from allmrec.tables.conforming import as_read, to_write
from allmrec.tables.creation import create_table
from allmrec.tables.migration import migrate
from allmrec.tables.schemas import TABLES
from allmrec.tables.specification import TableSpec
from allmrec.tables.sql_text import quoted
from allmrec.tables.troubles import explained, is_conflict

Result = TypeVar("Result")

_COMMIT_MARK = "spark.databricks.delta.commitInfo.userMetadata"
MAX_TRIES = 12
"""How often a commit is tried that other commits come before."""
_HOW_TO_GET = {
    "interactions": "import it (`allmrec import`) or set tables.root",
    "items": "import it (`allmrec import`) or set tables.root",
    "user_sequences": "run `allmrec sequences` for that date first",
    "candidates": "run `allmrec candidates` for that date first",
    "recommendations": "run `allmrec score` for that date first",
}


class Written(NamedTuple):
    """The rows of one run date, as a step's record names them."""

    version: int
    """A version of the table that holds them."""
    num_rows: int
    digest: str
    """Sum of the rows' hashes: other rows have another one."""


def read_delta_folder(spark: SparkSession, uri: str) -> DataFrame:
    """Return the Delta table in any folder, as it is: for imports of other people's tables.

    Raises TableError where it cannot be read.
    """
    try:
        return spark.read.format("delta").load(uri)
    except PySparkException as error:
        raise TableError(f"{uri}: no readable Delta table: {str(error).splitlines()[0]}") from error


def has_files(spark: SparkSession, read: Callable[[], DataFrame]) -> bool:
    """Return whether the files of what `read` returns are there: VACUUM deletes those of old versions."""
    try:
        uris = read().inputFiles()
    except (PySparkException, Py4JJavaError, TableError):
        return False
    folders = {uri.rpartition("/")[0] for uri in uris}
    there = {f"{folder}/{file}" for folder in folders for file in filesystem.list_names(spark, folder)}
    return set(uris) <= there


class Tables:
    """The tables below one root folder. Methods raise TableError for a name that `TABLES` does not have.

    Parameters
    ----------
    spark: the session.
    root: the folder, as a path or a URI that Hadoop knows.
    schema_name: a schema of Spark's catalogue in which tables that are written get names; None: in none.

    Raises ConfigError where there is no such schema.
    """

    def __init__(self, spark: SparkSession, root: str, schema_name: str | None = None) -> None:
        self.spark, self.schema_name = spark, schema_name
        if schema_name is not None and not spark.catalog.databaseExists(schema_name):
            raise ConfigError(
                f"tables.schema_name: {schema_name}, expected a schema of Spark's catalogue; create it first"
            )
        self.root = filesystem.absolute(spark, root.rstrip("/") or root)
        self._created: set[str] = set()

    def path(self, name: str) -> str:
        """Return the folder of the table `name`. Raises TableError where there is no table of that name."""
        return f"{self.root}/{_spec(name).name}"

    def exists(self, name: str) -> bool:
        """Return whether the table exists. Raises TableError where its folder holds files but no commit."""
        return self.newest(name) is not None

    def newest(self, name: str) -> int | None:
        """Return the newest version, None where there is no table; raises TableError as `exists` does."""
        with self._explained(name):
            return delta_log.newest_version(self.spark, name, self.path(name))

    def table_id(self, name: str) -> str:
        """Return Delta's id of the table; another table at its path has another one.

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
        """Return the last version before `moment` (with a zone) that can be read; None where there is none.

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
        """Let every commit of the block carry `mark` as JSON in its `userMetadata`."""
        self.spark.conf.set(_COMMIT_MARK, json.dumps(mark, sort_keys=True))
        try:
            yield
        finally:
            try:
                self.spark.conf.unset(_COMMIT_MARK)
            except (Py4JError, OSError):
                # Spark's JVM has ended, and the setting with it; this must not hide the error that ended it.
                pass

    def create(self, name: str) -> None:
        """Create the table where it is missing; an owned one with its NOT NULL and CHECK constraints.

        A table that an older version of this program made gets the columns that are new since. Raises
        TableError where its folder holds files but no commit, or its name in the catalogue is another's.
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
        """Return the table at `version` (the newest by default) with exactly its specified columns.

        Columns that the table may lack, and lacks, are null. Raises TableError where the table is missing or
        half-written, or has other columns or types.
        """
        frame = self.read_as_it_is(name, version)
        with self._explained(name):
            return as_read(_spec(name), frame, self.path(name))

    def read_as_it_is(self, name: str, version: int | None = None) -> DataFrame:
        """Return the table at `version` (the newest by default) with whatever columns it has.

        Raises TableError where it is missing or half-written.
        """
        newest = self.version(name)
        version = newest if version is None else version
        path = self.path(name)
        if version > newest:
            raise TableError(f"{name}: version {version} asked, but {path} ends at version {newest}")
        with self._explained(name):
            return self.spark.read.format("delta").option("versionAsOf", version).load(path)

    def read_date(self, name: str, run_date: dt.date, version: int | None = None) -> DataFrame:
        """Return the rows of one run date of a nightly table, if any. Raises TableError as `read` does."""
        return self.read(name, version).where(F.col("run_date") == F.lit(run_date))

    def written(self, name: str, run_date: dt.date, version: int | None = None) -> Written:
        """Return what the table holds of a run date. Raises TableError as `read` does."""
        version = self.version(name) if version is None else version
        sums = self.read_date(name, run_date, version).agg(*_sums()).first()
        assert sums is not None
        return Written(version, sums[0], str(sums[1] or 0))

    def written_dates(self, name: str) -> dict[dt.date, Written]:
        """Return what the newest version holds of every run date. Raises TableError as `read` does."""
        version = self.version(name)
        groups = self.read(name, version).groupBy("run_date").agg(*_sums()).collect()
        return {day: Written(version, number, str(digest or 0)) for day, number, digest in groups}

    def replace_date(self, name: str, rows: DataFrame, run_date: dt.date, order: int) -> Written:
        """Replace all rows of `run_date` by `rows` in one commit, creating the table first.

        `order` is the run's place among those of this date: the commit is refused with SupersededError where
        one with a higher number was there first, also where it comes in between. A column `run_date` that
        `rows` lack is added. Raises TableError where the columns or types are wrong, a constraint is broken,
        or a row is of another date; PassingError where other commits kept coming first.
        """
        self.create(name)
        if "run_date" not in rows.columns:
            rows = rows.withColumn("run_date", F.lit(run_date).cast("date"))
        application = f"allmrec/{run_date.isoformat()}"
        writer = to_write(_spec(name), rows).write.format("delta").mode("overwrite")
        writer = writer.option("replaceWhere", f"run_date = DATE'{run_date.isoformat()}'")
        writer = writer.option("txnAppId", application).option("txnVersion", order)
        # However many tasks made the rows: files are as large as the session says.
        writer = writer.option("optimizeWrite", "true")
        self.retried(name, lambda: writer.save(self.path(name)))
        with self._explained(name):
            version, newest_order = delta_log.transaction(self.spark, self.path(name), application)
        if newest_order != order:
            raise SupersededError(f"{name} of {run_date}: a newer run wrote it meanwhile")
        return self.written(name, run_date, version)

    def replace_where(self, name: str, rows: DataFrame, condition: str) -> None:
        """Replace the rows that meet a condition (SQL) by `rows`, all of which meet it.

        One commit, creating the table first. Raises like `replace_date`.
        """
        self.create(name)
        writer = to_write(_spec(name), rows).write.format("delta").mode("overwrite")
        self.retried(name, lambda: writer.option("replaceWhere", condition).save(self.path(name)))

    def append(self, name: str, *rows: Mapping[str, Any]) -> None:
        """Add rows in one commit, creating the table first; columns that are not given are null.

        Appends of several runs at once never conflict. Raises TableError as `replace_date` does.
        """
        self.create(name)
        spec = _spec(name)
        values = [tuple(row.get(column.name) for column in spec.columns) for row in rows]
        frame = self.spark.createDataFrame(values, spec.schema).coalesce(1)
        self.retried(name, lambda: frame.write.format("delta").mode("append").save(self.path(name)))

    def merge(self, name: str, rows: DataFrame, update: bool = True) -> int:
        """Insert the `rows` with new keys and, with `update`, change those that differ.

        Return how many rows were written. No commit is made where nothing changes. `rows` hold every key at
        most once. Raises TableError where they do not, and as `replace_date` does.
        """
        self.create(name)
        spec = _spec(name)
        rows = to_write(spec, rows)
        return self.retried(name, lambda: self._merge_changes(spec, rows, update))

    def _give_name(self, name: str, path: str) -> None:
        """Let the catalogue call the table at `path` by `name`; raises TableError where that is another."""
        self.spark.sql(f"CREATE TABLE IF NOT EXISTS {name} USING delta LOCATION {quoted(path)}")
        tables = DeltaTable.forName(self.spark, name), DeltaTable.forPath(self.spark, path)
        [(named, location), (ours, _)] = (
            table.detail().select("id", "location").collect()[0] for table in tables
        )
        if named != ours:
            raise TableError(f"{name}: is the table at {location}, expected {path}; drop it or rename it")

    def _merge_changes(self, spec: TableSpec, rows: DataFrame, update: bool) -> int:
        """Merge what differs from the newest version, and return how many rows that is."""
        with CachedFrames() as frames:
            changes = changed_rows(spec, rows, self.read(spec.name), update)
            changes = frames.keep(changes, StorageLevel.MEMORY_AND_DISK)
            num_rows = changes.count()
            if num_rows:
                self._merge(spec, changes, update)
            return num_rows

    def _merge(self, spec: TableSpec, changes: DataFrame, update: bool) -> None:
        """Insert `changes` in one commit; with `update` they replace the rows of their keys."""
        condition = F.lit(True)
        for name in spec.key:
            condition = condition & same_key(spec, name, F.col(f"target.{name}"), F.col(f"source.{name}"))
        target = DeltaTable.forPath(self.spark, self.path(spec.name)).alias("target")
        merge = target.merge(changes.alias("source"), condition).whenNotMatchedInsertAll()
        (merge.whenMatchedUpdateAll() if update else merge).execute()

    def retried(self, name: str, commit: Callable[[], Result]) -> Result:
        """Return what `commit` returns; it is called again where another commit came first.

        Raises PassingError where that never ends, and what else is wrong with the table by `explained`.
        """
        with self._explained(name):
            for tries in range(1, MAX_TRIES + 1):
                try:
                    return commit()
                except (PySparkException, Py4JJavaError) as error:
                    if tries == MAX_TRIES or not is_conflict(error):
                        raise
                # Those who met once would meet again: each waits another while.
                time.sleep(random.uniform(0, min(0.1 * 2**tries, 5.0)))
            raise AssertionError("unreachable")

    def _explained(self, name: str) -> AbstractContextManager[None]:
        """Return the context in which what Delta says about the table becomes a UserError."""
        return explained(name, self.path(name))


def _sums() -> tuple[Column, Column]:
    """Return the aggregates that tell rows: their number, and the sum of their hashes."""
    return F.count(F.lit(1)), row_digest()


def row_digest() -> Column:
    """Return the aggregate that tells rows in any order: the sum of their hashes; null without rows."""
    return F.sum(F.xxhash64("*").cast("decimal(38,0)"))


def _spec(name: str) -> TableSpec:
    """Return the specification of a table; raises TableError where there is none of that name."""
    if name not in TABLES:
        raise TableError(f"{name}: no such table, expected one of {', '.join(TABLES)}")
    return TABLES[name]

"""The only reader and writer of Delta tables.

Reads are checked and of one version, a run date is replaced in one commit, and a merge that changes nothing
makes no commit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.errors import TableError
from allmrec.tables import filesystem
from allmrec.tables.cached_frames import CachedFrames
from allmrec.tables.changes import changed_rows
from allmrec.tables.conforming import as_read, to_write
from allmrec.tables.folders import newest_commit, require_files
from allmrec.tables.schemas import TABLES
from allmrec.tables.specification import TableSpec
from allmrec.tables.troubles import explained

_HOW_TO_GET = {
    "interactions": "import it (`allmrec import`) or set tables.root",
    "items": "import it (`allmrec import`) or set tables.root",
    "user_sequences": "run `allmrec sequences` for that date first",
    "candidates": "run `allmrec candidates` for that date first",
    "recommendations": "run `allmrec score` for that date first",
}


def read_delta_folder(spark: SparkSession, uri: str) -> DataFrame:
    """Return the Delta table in any folder, as it is: for imports of other people's tables.

    Raises TableError where it cannot be read.
    """
    try:
        return spark.read.format("delta").load(uri)
    except PySparkException as error:
        raise TableError(f"{uri}: no readable Delta table: {str(error).splitlines()[0]}") from error


class Tables:
    """The tables below one root folder. Methods raise TableError for a name that `TABLES` does not have.

    Parameters
    ----------
    spark: the session.
    root: the folder, as a path or a URI that Hadoop knows.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self.root = filesystem.absolute(spark, root.rstrip("/") or root)
        self._created: set[str] = set()

    def path(self, name: str) -> str:
        """Return the folder of the table `name`. Raises TableError where there is no table of that name."""
        return f"{self.root}/{_spec(name).name}"

    def exists(self, name: str) -> bool:
        """Return whether the table exists. Raises TableError where its folder holds files but no commit."""
        return newest_commit(self.spark, name, self.path(name)) is not None

    def version(self, name: str) -> int:
        """Return the table's newest version. Raises TableError where it is missing or half-written."""
        newest = newest_commit(self.spark, name, self.path(name))
        if newest is None:
            advice = _HOW_TO_GET.get(name, "run the step that writes it first")
            raise TableError(f"{name}: no Delta table at {self.path(name)}, expected one; {advice}")
        return newest

    def create(self, name: str) -> None:
        """Create the table where it is missing; an owned one with its NOT NULL and CHECK constraints.

        Raises TableError where its folder holds files but no commit.
        """
        if name in self._created:
            return
        if not self.exists(name):
            self._create(_spec(name))
        self._created.add(name)

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """Return the table at `version` (the newest by default) with exactly its specified columns.

        Columns that an input table may lack, and lacks, are null. Raises TableError where the table is
        missing or half-written, or has other columns or types.
        """
        frame = self._read(name, version)
        self._require_files(name, frame)
        return frame

    def read_date(self, name: str, run_date: dt.date) -> DataFrame:
        """Return the rows of one run date of a nightly table, if any. Raises TableError as `read` does."""
        frame = self._read(name, None).where(F.col("run_date") == F.lit(run_date))
        self._require_files(name, frame)
        return frame

    def replace_date(self, name: str, rows: DataFrame, run_date: dt.date) -> None:
        """Replace all rows of `run_date` by `rows` in one commit, creating the table first.

        A column `run_date` that `rows` lack is added. Raises TableError where the columns or types are wrong,
        a constraint is broken, or a row is of another date.
        """
        self.create(name)
        if "run_date" not in rows.columns:
            rows = rows.withColumn("run_date", F.lit(run_date).cast("date"))
        self._replace(name, to_write(_spec(name), rows), f"run_date = DATE'{run_date.isoformat()}'")

    def overwrite(self, name: str, rows: DataFrame) -> None:
        """Replace the whole table by `rows` in one commit, creating it first. Raises like `replace_date`."""
        self.create(name)
        writer = to_write(_spec(name), rows).write.format("delta").mode("overwrite")
        with self._explained(name):
            writer.save(self.path(name))

    def put(self, name: str, row: Mapping[str, Any]) -> None:
        """Insert one row, or replace the one of its key, in one commit: for a run's own record.

        The key's columns hold texts; columns that are not given are null. Raises TableError as `replace_date`
        does.
        """
        self.create(name)
        spec = _spec(name)
        values = tuple(row.get(column.name) for column in spec.columns)
        key = " AND ".join(f"{column} = '{_quoted(row[column])}'" for column in spec.key)
        self._replace(name, self.spark.createDataFrame([values], spec.schema), key)

    def merge(self, name: str, rows: DataFrame, update: bool = True) -> int:
        """Insert the `rows` with new keys and, with `update`, change those that differ.

        Return how many rows were written. No commit is made where nothing changes. `rows` hold every key at
        most once. Raises TableError where they do not, and as `replace_date` does.
        """
        is_new = not self.exists(name)
        self.create(name)
        spec = _spec(name)
        rows = to_write(spec, rows)
        if not is_new:
            rows = changed_rows(spec, rows, self._read(name, None), update)
        with CachedFrames() as frames, self._explained(name):
            rows = frames.keep(rows, StorageLevel.MEMORY_AND_DISK)
            num_rows = rows.count()
            if num_rows and is_new:
                rows.write.format("delta").mode("append").save(self.path(name))
            elif num_rows:
                self._merge(spec, rows, update)
            return num_rows

    def _create(self, spec: TableSpec) -> None:
        """Create a table that does not exist, in one commit."""
        columns = spec.schema
        if not spec.owned:
            columns = T.StructType([T.StructField(column.name, column.type) for column in spec.columns])
        builder = DeltaTable.createIfNotExists(self.spark).location(self.path(spec.name))
        builder = builder.addColumns(columns).partitionedBy(*spec.partitioned_by)
        for constraint in spec.constraints:
            # As a property it is part of the commit that creates the table, which so never exists without it.
            builder = builder.property(f"delta.constraints.{constraint.name}", constraint.condition)
        builder.execute()

    def _read(self, name: str, version: int | None) -> DataFrame:
        """Return the table's columns as `read` does, without a look at its data files."""
        newest = self.version(name)
        version = newest if version is None else version
        path = self.path(name)
        if version > newest:
            raise TableError(f"{name}: version {version} asked, but {path} ends at version {newest}")
        with self._explained(name):
            frame = self.spark.read.format("delta").option("versionAsOf", version).load(path)
            return as_read(_spec(name), frame, path)

    def _replace(self, name: str, rows: DataFrame, condition: str) -> None:
        """Replace the rows that meet a SQL condition by `rows`, which must meet it too, in one commit."""
        writer = rows.write.format("delta").mode("overwrite").option("replaceWhere", condition)
        with self._explained(name):
            writer.save(self.path(name))

    def _merge(self, spec: TableSpec, changes: DataFrame, update: bool) -> None:
        """Insert `changes` in one commit; with `update` they replace the rows of their keys."""
        condition = " AND ".join(f"target.`{column}` = source.`{column}`" for column in spec.key)
        target = DeltaTable.forPath(self.spark, self.path(spec.name)).alias("target")
        merge = target.merge(changes.alias("source"), condition).whenNotMatchedInsertAll()
        (merge.whenMatchedUpdateAll() if update else merge).execute()

    def _require_files(self, name: str, frame: DataFrame) -> None:
        """Raise TableError where data files are gone from which `frame` is to be read."""
        with self._explained(name):
            uris = frame.inputFiles()
        require_files(self.spark, name, self.path(name), uris)

    def _explained(self, name: str) -> AbstractContextManager[None]:
        """Return the context in which what Delta says about the table becomes a TableError."""
        return explained(name, self.path(name))


def _spec(name: str) -> TableSpec:
    """Return the specification of a table; raises TableError where there is none of that name."""
    if name not in TABLES:
        raise TableError(f"{name}: no such table, expected one of {', '.join(TABLES)}")
    return TABLES[name]


def _quoted(text: str) -> str:
    """Return a text as it stands between the quotes of a SQL literal."""
    return text.replace("\\", "\\\\").replace("'", "\\'")

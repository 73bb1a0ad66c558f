"""Input tables in place: by catalogue name, by path, or ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from delta.tables import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.config import SourceConfig
from allmrec.errors import TableError
from allmrec.spark import filesystem
from allmrec.spark.troubles import explained, first_line
from allmrec.tables.delta import Tables, has_files
from allmrec.tables.delta_log import added_rows, names_of_columns, version_at


class Changes(NamedTuple):
    """The changes of some commits to a table, in its own columns."""

    added: DataFrame
    """The rows that the commits added."""
    changed: DataFrame | None
    """The rows that the commits changed or deleted, before and after. None if there are none."""


class Source:
    """The input table `name`, at the place that `tables.<name>` configures.

    Methods raise TableError where the table is missing or cannot be read.
    """

    def __init__(self, tables: Tables, name: str, settings: SourceConfig) -> None:
        self.name = name
        self.settings = settings
        self._tables = tables
        self._spark = tables.spark
        self.is_own = settings.table is None and settings.path is None
        """Whether it is the table below `tables.root`."""
        self.place = settings.table or self._path()
        """Its name in errors."""
        self.key = name if self.is_own else f"{name} ({self.place})"
        """Its key in `runs.input_versions`.

        The key contains the path, because versions of two tables cannot be compared.
        """

    def _path(self) -> str:
        """Return the folder of a table that has no name."""
        path = self.settings.path
        return self._tables.path(self.name) if path is None else filesystem.absolute(self._spark, path)

    def exists(self) -> bool:
        """Return whether the table exists. A table that the configuration names is assumed to exist."""
        return not self.is_own or self._tables.exists(self.name)

    def version(self) -> int | None:
        """Return the newest version, or None if it is no Delta table."""
        if self.is_own:
            return self._tables.version(self.name)
        with self._explained():
            if not self._is_delta():
                return None
            newest = self._delta().history(1).select("version").first()
        assert newest is not None
        return int(newest[0])

    def table_id(self) -> str | None:
        """Return Delta's id of the table. Another table of its path or name has another id.

        Returns None for a table of another format.
        """
        if self.is_own:
            return self._tables.table_id(self.name)
        with self._explained():
            if not self._is_delta():
                return None
            return str(self._delta().detail().select("id").collect()[0][0])

    def has_same_columns(self, one: int, other: int) -> bool:
        """Return whether every name means the same column in two versions.

        A column that was added since has a new name, which is no difference. A dropped column is no
        difference either; reading it raises. Raises Delta's error if the log no longer contains these
        versions.
        """
        location = self._delta().detail().select("location").collect()[0][0]
        before, after = (names_of_columns(self._spark, location, version) for version in (one, other))
        renamed = any(after[column] != name for column, name in before.items() if column in after)
        names_of_added = {name for column, name in after.items() if column not in before}
        return not renamed and names_of_added.isdisjoint(before.values())

    def version_at(self, moment: datetime) -> int | None:
        """Return the last readable version before `moment` (with a zone), or None."""
        if self.is_own:
            return self._tables.version_at(self.name, moment)
        with self._explained():
            version = version_at(self._delta(), moment) if self._is_delta() else None
        return version if version is not None and has_files(self._spark, lambda: self.read(version)) else None

    def read(self, version: int | None) -> DataFrame:
        """Return the table at a version, with its own columns. None: as it is now."""
        if self.is_own:
            return self._tables.read_as_it_is(self.name, version)
        reader = self._spark.read if version is None else self._spark.read.option("versionAsOf", version)
        with self._explained():
            if self.settings.table is not None:
                return reader.table(self.place)
            return reader.format(self.settings.format).load(self.place)

    def changes(self, after: int, until: int) -> Changes | None:
        """Return the changes of the versions `after` + 1 to `until`.

        They are read from the table's change data feed if it is enabled. The log, read otherwise, contains
        only added rows, so that the result is None if rows were changed or deleted. Raises Spark's error,
        here or when the rows are read, where the table's record begins later.
        """
        table = self._delta()
        detail = table.detail().select("location", "properties").collect()[0]
        if detail["properties"].get("delta.enableChangeDataFeed") != "true":
            added = added_rows(self._spark, detail["location"], after, until)
            return None if added is None else Changes(added, None)
        feed = self._spark.read.format("delta").option("readChangeFeed", "true")
        feed = feed.option("startingVersion", after + 1).option("endingVersion", until)
        rows = feed.load(detail["location"])
        is_new = F.col("_change_type") == "insert"
        return Changes(rows.where(is_new), rows.where(~is_new))

    def _is_delta(self) -> bool:
        if self.settings.table is None:
            if self.settings.format == "delta" and not DeltaTable.isDeltaTable(self._spark, self.place):
                raise TableError(
                    f"{self.name}: no Delta table at {self.place}, expected one; "
                    f"check tables.{self.name}.path and .format"
                )
            return self.settings.format == "delta"
        described = self._spark.sql(f"DESCRIBE TABLE EXTENDED {self.place}")
        return bool(described.where("col_name = 'Provider' AND lower(data_type) = 'delta'").take(1))

    def _delta(self) -> DeltaTable:
        if self.is_own:
            return DeltaTable.forPath(self._spark, self._tables.path(self.name))
        by_name = self.settings.table is not None
        return (DeltaTable.forName if by_name else DeltaTable.forPath)(self._spark, self.place)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise TableError, in one line, where Spark cannot open the configured table."""
        try:
            with explained(self.name, self.place):
                yield
        except PySparkException as error:
            raise TableError(
                f"{self.name}: {self.place} cannot be read: {first_line(error)}; "
                f"expected a table, check tables.{self.name}"
            ) from error

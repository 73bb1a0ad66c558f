"""Input tables where they lie: a name in Spark's catalogue, a path, or our own folder; nothing is copied."""

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
from allmrec.tables import filesystem
from allmrec.tables.delta import Tables, has_files
from allmrec.tables.delta_log import added_rows, names_of_columns, version_at
from allmrec.tables.troubles import explained, first_line


class Changes(NamedTuple):
    """What some commits did to a table, in its own columns."""

    added: DataFrame
    """The rows that they added."""
    changed: DataFrame | None
    """The rows that they changed or deleted, as they were and as they are; None: there are none."""


class Source:
    """The input table `name`, as `tables.<name>` of the configuration says where it is.

    Methods raise TableError where it is missing or cannot be read.
    """

    def __init__(self, tables: Tables, name: str, settings: SourceConfig) -> None:
        self.name, self.settings = name, settings
        self._tables, self._spark = tables, tables.spark
        self.is_own = settings.table is None and settings.path is None
        """Whether it is the table below `tables.root`."""
        path = tables.path(name) if settings.path is None else filesystem.absolute(self._spark, settings.path)
        self.place = settings.table or path
        """What errors call it."""
        self.key = name if self.is_own else f"{name} ({self.place})"
        """What records of versions call it: a version of another table is none of this one."""

    def exists(self) -> bool:
        """Return whether it is there; one that the configuration names must be."""
        return not self.is_own or self._tables.exists(self.name)

    def version(self) -> int | None:
        """Return the newest version; None where it has none, because it is no Delta table."""
        if self.is_own:
            return self._tables.version(self.name)
        with self._explained():
            if not self._is_delta():
                return None
            newest = self._delta().history(1).select("version").first()
        assert newest is not None
        return int(newest[0])

    def table_id(self) -> str | None:
        """Return Delta's id of the table, which another table of its path or name does not have.

        None for a table that is no Delta table.
        """
        if self.is_own:
            return self._tables.table_id(self.name)
        with self._explained():
            if not self._is_delta():
                return None
            return str(self._delta().detail().select("id").collect()[0][0])

    def has_same_columns(self, one: int, other: int) -> bool:
        """Return whether every name stands for the same column in two versions, the second one the newer.

        A column that was added since has a name that stood for nothing before: that is the same. So is a
        column that was dropped, unless its name is read: then it would be missing. What Delta raises where
        its log does not reach back so far is raised.
        """
        location = self._delta().detail().select("location").collect()[0][0]
        before, after = (names_of_columns(self._spark, location, version) for version in (one, other))
        renamed = any(after[column] != name for column, name in before.items() if column in after)
        names_of_added = {name for column, name in after.items() if column not in before}
        return not renamed and names_of_added.isdisjoint(before.values())

    def version_at(self, moment: datetime) -> int | None:
        """Return the last version before `moment` (with a zone) that can be read, None where none can."""
        if self.is_own:
            return self._tables.version_at(self.name, moment)
        with self._explained():
            version = version_at(self._delta(), moment) if self._is_delta() else None
        return version if version is not None and has_files(self._spark, lambda: self.read(version)) else None

    def read(self, version: int | None) -> DataFrame:
        """Return it at a version, with its own columns; None for one without versions, as it stands now."""
        if self.is_own:
            return self._tables.read_as_it_is(self.name, version)
        reader = self._spark.read if version is None else self._spark.read.option("versionAsOf", version)
        with self._explained():
            if self.settings.table is not None:
                return reader.table(self.place)
            return reader.format(self.settings.format).load(self.place)

    def changes(self, after: int, until: int) -> Changes | None:
        """Return what the commits after version `after` up to `until` did, with the source's own columns.

        It is read from the table's change data feed where that is enabled, and else from its log, which tells
        of added rows alone: None where others were changed or deleted. Also what Spark raises where the table
        keeps no record that reaches back so far is raised, here or when the rows are read.
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
        """Raise TableError, in one line, where Spark cannot open what the configuration names."""
        try:
            with explained(self.name, self.place):
                yield
        except PySparkException as error:
            raise TableError(
                f"{self.name}: {self.place} cannot be read: {first_line(error)}; "
                f"expected a table, check tables.{self.name}"
            ) from error

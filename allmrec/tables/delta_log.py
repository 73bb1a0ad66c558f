"""A table's transaction log: its id, newest version, last writer, and its columns and rows over time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.errors import TableError
from allmrec.tables import filesystem
from allmrec.tables.session import java_class


def newest_version(spark: SparkSession, name: str, path: str) -> int | None:
    """Return the newest version of the table `name` at `path`; None where there is no table.

    Raises TableError where the folder holds files but no commit.
    """
    version = int(_snapshot(spark, path).version())
    if version >= 0:
        return version
    # A log without a commit is a table that somebody is just creating.
    if any(name != "_delta_log" for name in filesystem.list_names(spark, path)):
        raise TableError(
            f"{name}: half-written: {path} holds files but no Delta commit, "
            "expected a Delta table; move them away"
        )
    return None


def table_id(spark: SparkSession, path: str) -> str:
    """Return Delta's id of the table at `path`, which another table at the same path does not have.

    Some writers draw a new id when they overwrite the table.
    """
    return str(_snapshot(spark, path).metadata().id())


def names_of_columns(spark: SparkSession, path: str, version: int) -> dict[str, str]:
    """Return the physical name → the name of every column and field of the table at `path` in a version.

    With column mapping a column keeps its physical name when it is renamed, and a column that takes its name
    has another one. The names of a field of a struct follow the struct's, after a dot. What Delta raises
    where its log does not reach back so far is raised.
    """
    none = _none(spark)
    schema = json.loads(_log(spark, path).getSnapshotAt(version, none, none).schema().json())
    return dict(_names_of_fields(schema))


def _names_of_fields(kind: Any, physical: str = "", name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (physical name, name) of all fields below a type of Spark's JSON."""
    if not isinstance(kind, dict):
        return
    for field in kind.get("fields", ()):
        own = field["metadata"].get("delta.columnMapping.physicalName", field["name"])
        yield f"{physical}{own}", f"{name}{field['name']}"
        yield from _names_of_fields(field["type"], f"{physical}{own}.", f"{name}{field['name']}.")
    for inner in ("elementType", "keyType", "valueType"):
        yield from _names_of_fields(kind.get(inner), physical, name)


def transaction(spark: SparkSession, path: str, application: str) -> tuple[int, int | None]:
    """Return (newest version, the transaction number that `application` committed last in it).

    See `txnAppId` and `txnVersion` of Delta's idempotent writes.
    """
    snapshot = _snapshot(spark, path)
    number = snapshot.transactions().get(application)
    return snapshot.version(), number.get() if number.isDefined() else None


def version_at(table: DeltaTable, moment: datetime) -> int | None:
    """Return the last version that was committed before `moment` (with a zone).

    None where the table's history does not reach back so far.
    """
    history = table.history().where(F.col("timestamp") < F.lit(moment))
    newest = history.agg(F.max("version")).first()
    return None if newest is None else newest[0]


def added_rows(spark: SparkSession, path: str, after: int, until: int) -> DataFrame | None:
    """Return the rows that the commits after version `after` up to `until` added to the table at `path`.

    None where one of them took rows away, or changed any. Files that were only written anew, as OPTIMIZE
    does, add nothing. What Delta raises where its log does not reach back so far is raised.
    """
    log = _log(spark, path)
    added = spark._jvm.java.util.ArrayList()  # type: ignore[union-attr]
    changes = log.getChanges(after + 1, until, True)
    while changes.hasNext():
        actions = changes.next()._2().iterator()
        while actions.hasNext():
            action = actions.next()
            kind = action.getClass().getSimpleName()
            if kind not in ("AddFile", "RemoveFile") or not action.dataChange():
                continue
            if kind == "RemoveFile":
                return None
            added.add(action)
    files = java_class(spark, "scala.jdk.javaapi.CollectionConverters").asScala(added).toList()
    none = _none(spark)
    frame = log.createDataFrame(log.getSnapshotAt(until, none, none), files, False, none)
    return DataFrame(frame, spark)


def _snapshot(spark: SparkSession, path: str) -> Any:
    """Return Delta's newest `Snapshot` of the table at `path`; its version is -1 where there is no commit."""
    return _log(spark, path).update(False, _none(spark), _none(spark))


def _log(spark: SparkSession, path: str) -> Any:
    """Return Delta's `DeltaLog` of the table at `path`."""
    return java_class(spark, "org.apache.spark.sql.delta.DeltaLog").forTable(spark._jsparkSession, path)


def _none(spark: SparkSession) -> Any:
    """Return Scala's `None`."""
    return getattr(java_class(spark, "scala.None$"), "MODULE$")

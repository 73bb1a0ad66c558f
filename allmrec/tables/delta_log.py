"""A table's transaction log: id, versions, last writer, columns, added rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.errors import TableError
from allmrec.spark import filesystem
from allmrec.spark.session import java_class


def newest_version(spark: SparkSession, name: str, path: str) -> int | None:
    """Return the newest version of the table at `path`, or None.

    Raises TableError where the folder has files but no commit.
    """
    version = int(_snapshot(spark, path).version())
    if version >= 0:
        return version
    # Another run is creating a table whose log has no commit.
    if any(name != "_delta_log" for name in filesystem.list_names(spark, path)):
        raise TableError(
            f"{name}: half-written: {path} holds files but no Delta commit, "
            "expected a Delta table; move them away"
        )
    return None


def table_id(spark: SparkSession, path: str) -> str:
    """Return Delta's id of the table at `path`. Another table there has another id.

    Some writers draw a new id when they overwrite the table.
    """
    return str(_snapshot(spark, path).metadata().id())


def names_of_columns(spark: SparkSession, path: str, version: int) -> dict[str, str]:
    """Return physical name → name of a version's columns and fields.

    With column mapping a renamed column keeps its physical name, and a new column of that name has another
    one. Fields of a struct follow the name of the struct and a dot. Raises Delta's error if the log no longer
    contains the version.
    """
    none = _none(spark)
    schema = json.loads(_log(spark, path).getSnapshotAt(version, none, none).schema().json())
    return dict(_names_of_fields(schema))


def _names_of_fields(kind: Any, physical: str = "", name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (physical name, name) of all fields of a type (JSON)."""
    if not isinstance(kind, dict):
        return
    for field in kind.get("fields", ()):
        own = field["metadata"].get("delta.columnMapping.physicalName", field["name"])
        yield f"{physical}{own}", f"{name}{field['name']}"
        yield from _names_of_fields(field["type"], f"{physical}{own}.", f"{name}{field['name']}.")
    for inner in ("elementType", "keyType", "valueType"):
        yield from _names_of_fields(kind.get(inner), physical, name)


def transaction(spark: SparkSession, path: str, application: str) -> tuple[int, int | None]:
    """Return (newest version, transaction number of `application`'s last commit).

    See `txnAppId` and `txnVersion` of Delta's idempotent writes.
    """
    snapshot = _snapshot(spark, path)
    number = snapshot.transactions().get(application)
    return snapshot.version(), number.get() if number.isDefined() else None


def version_at(table: DeltaTable, moment: datetime) -> int | None:
    """Return the last version that was committed before `moment` (with a zone).

    Returns None if the table's history begins later.
    """
    history = table.history().where(F.col("timestamp") < F.lit(moment))
    newest = history.agg(F.max("version")).first()
    return None if newest is None else newest[0]


def added_rows(spark: SparkSession, path: str, after: int, until: int) -> DataFrame | None:
    """Return the rows that the versions `after` + 1 to `until` added.

    Returns None if a commit deleted or changed rows. Files that were only rewritten, as by OPTIMIZE, add
    none. Raises Delta's error if the log no longer contains these versions.
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
    """Return Delta's newest `Snapshot` of the table. Without a commit its version is -1."""
    return _log(spark, path).update(False, _none(spark), _none(spark))


def _log(spark: SparkSession, path: str) -> Any:
    """Return Delta's `DeltaLog` of the table at `path`."""
    return java_class(spark, "org.apache.spark.sql.delta.DeltaLog").forTable(spark._jsparkSession, path)


def _none(spark: SparkSession) -> Any:
    """Return Scala's `None`."""
    return getattr(java_class(spark, "scala.None$"), "MODULE$")

"""What a table's transaction log says: its newest version, who wrote last, what it held on a day."""

from __future__ import annotations

from datetime import datetime

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from allmrec.errors import TableError
from allmrec.tables import filesystem


def newest_version(spark: SparkSession, name: str, path: str) -> int | None:
    """Return the newest version of the table `name` at `path`; None where there is no table.

    Raises TableError where the folder holds files but no commit.
    """
    version = -1
    if DeltaTable.isDeltaTable(spark, path):
        version = DeltaTable.forPath(spark, path)._jdt.deltaLog().update(*_defaults(spark)).version()
    if version >= 0:
        return version
    # A log without a commit is a table that somebody is just creating.
    if any(name != "_delta_log" for name in filesystem.list_names(spark, path)):
        raise TableError(
            f"{name}: half-written: {path} holds files but no Delta commit, "
            "expected a Delta table; move them away"
        )
    return None


def transaction(spark: SparkSession, path: str, application: str) -> tuple[int, int | None]:
    """Return (newest version, the transaction number that `application` committed last in it).

    See `txnAppId` and `txnVersion` of Delta's idempotent writes.
    """
    snapshot = DeltaTable.forPath(spark, path)._jdt.deltaLog().update(*_defaults(spark))
    number = snapshot.transactions().get(application)
    return snapshot.version(), number.get() if number.isDefined() else None


def version_at(spark: SparkSession, path: str, moment: datetime) -> int | None:
    """Return the last version that was committed before `moment` (with a zone).

    None where the table's history does not reach back so far.
    """
    history = DeltaTable.forPath(spark, path).history().where(F.col("timestamp") < F.lit(moment))
    newest = history.agg(F.max("version")).first()
    return None if newest is None else newest[0]


def _defaults(spark: SparkSession) -> tuple[object, ...]:
    """Return the arguments of Delta's `DeltaLog.update` that ask for the newest state."""
    none = getattr(getattr(spark.sparkContext._jvm.scala, "None$"), "MODULE$")  # type: ignore[union-attr]
    return False, none, none

"""A table that is missing is created in one commit, whatever a creation that was killed left in its place."""

from __future__ import annotations

import time

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from allmrec.tables import filesystem
from allmrec.tables.delta_log import newest_version
from allmrec.tables.specification import TableSpec

SECONDS_TO_CREATE = 20.0
"""How long another run that is just creating a table may need."""


def create_table(spark: SparkSession, spec: TableSpec, path: str) -> None:
    """Create the table `spec` at `path`, an owned one with its constraints.

    Nothing happens where another run creates it meanwhile. Raises what Delta raises.
    """
    _clear_remains(spark, spec.name, path)
    columns = spec.schema
    if not spec.owned:
        columns = T.StructType([T.StructField(column.name, column.type) for column in spec.columns])
    builder = DeltaTable.createIfNotExists(spark).location(path)
    builder = builder.addColumns(columns).partitionedBy(*spec.partitioned_by)
    for constraint in spec.constraints:
        # As a property it is part of the commit that creates the table, which so never exists without it.
        builder = builder.property(f"delta.constraints.{constraint.name}", constraint.condition)
    builder.execute()


def _clear_remains(spark: SparkSession, name: str, path: str) -> None:
    """Delete a log folder without a commit: Delta creates no table there, and finds none either.

    A run that is just creating the table has such a folder for a moment, so it gets time for its commit; and
    only what is there from the beginning is deleted.
    """
    log = f"{path}/_delta_log"
    remains, end = filesystem.list_names(spark, log), time.monotonic() + SECONDS_TO_CREATE
    while filesystem.exists(spark, log) and newest_version(spark, name, path) is None:
        if time.monotonic() > end:
            filesystem.delete_names(spark, log, remains)
            return
        time.sleep(0.2)

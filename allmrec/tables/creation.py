"""Creation of a missing table in one commit."""

from __future__ import annotations

import time

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from allmrec.spark import filesystem
from allmrec.tables.delta_log import newest_version
from allmrec.tables.specification import TableSpec

SECONDS_TO_CREATE = 20.0
"""How long another run may need to create a table."""


def create_table(spark: SparkSession, spec: TableSpec, path: str) -> None:
    """Create the table `spec` at `path`; an owned table gets its constraints.

    A table that another run creates at the same time stays as it is. Raises Delta's error where the creation
    fails.
    """
    _clear_remains(spark, spec.name, path)
    columns = spec.schema
    if not spec.owned:
        columns = T.StructType([T.StructField(column.name, column.type) for column in spec.columns])
    builder = DeltaTable.createIfNotExists(spark).location(path)
    builder = builder.addColumns(columns).partitionedBy(*spec.partitioned_by)
    for constraint in spec.constraints:
        # A property is part of the commit that creates the table, so that no version lacks the constraint.
        builder = builder.property(f"delta.constraints.{constraint.name}", constraint.condition)
    builder.execute()


def _clear_remains(spark: SparkSession, name: str, path: str) -> None:
    """Delete a log folder without a commit, which prevents a creation.

    A run that is creating the table has such a folder for a moment, so this waits for its commit first. Files
    that appear during the wait are kept.
    """
    log = f"{path}/_delta_log"
    remains = filesystem.list_names(spark, log)
    end = time.monotonic() + SECONDS_TO_CREATE
    while filesystem.exists(spark, log) and newest_version(spark, name, path) is None:
        if time.monotonic() > end:
            filesystem.delete_names(spark, log, remains)
            return
        time.sleep(0.2)

"""Files of any shop by a mapping of columns (`importing.columns`)."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.columns import is_blank
from allmrec.data.files.damage import reading
from allmrec.data.files.found import Copies
from allmrec.data.importers.positions import time_of
from allmrec.data.importers.reading import Task, fields_of, read_table


def read_files(
    spark: SparkSession,
    interactions: str,
    items: str,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
    copies: Copies | None = None,
) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) of two files or folders.

    Both have `raw` and `problem`. The content decides the form of each file, which is reported. Files that
    Spark cannot read at their place are copied into `copies`, by default on this machine's disk. Interactions
    with an order but no time get synthetic times, which is reported. Raises InputError and TableError as
    `read_table` does.
    """
    copies = copies or Copies.of_this_process(spark)
    mapping = config.columns.model_dump()
    position = {"position": (config.columns.position, "number")}
    fields = fields_of("interactions", mapping, position)
    log = read_table(
        copies, Task(interactions, "interactions", fields, config, report, either=("event_time", "position"))
    )
    catalogue = read_table(copies, Task(items, "items", fields_of("items", mapping), config, report))
    return _with_synthetic_times(log), catalogue


def read_users(
    spark: SparkSession,
    users: str,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
    copies: Copies | None = None,
    keep: Callable[[DataFrame], DataFrame] = lambda frame: frame,
) -> DataFrame:
    """Return (user_id) of a file of users, distinct and not blank.

    Other rows are reported. `keep` caches a frame. Spark moves a filter below the reading of the columns that
    it uses, and would read a row once for each use. Raises InputError and TableError as `read_table` does.
    """
    copies = copies or Copies.of_this_process(spark)
    mapping = config.columns.model_dump()
    rows = read_table(copies, Task(users, "users", fields_of("users", mapping), config, report))
    user_id = F.col("user_id")
    reason = F.when(user_id.isNull(), "null_user_id").when(is_blank(user_id), "empty_user_id")
    rows = keep(rows.select("user_id", F.coalesce("problem", reason).alias("reason")))
    with reading(users):
        left_out = rows.where("reason IS NOT NULL").groupBy("reason").count().orderBy("reason").collect()
    if left_out:
        report(f"{users}: rows left out: {', '.join(f'{row[1]:,} {row[0]}' for row in left_out)}")
    return rows.where("reason IS NULL").select("user_id").distinct()


def _with_synthetic_times(log: DataFrame) -> DataFrame:
    """Return the interactions with times from `position`, which replaces a missing time."""
    time = time_of(F.col("position"))
    is_too_large = F.col("position").isNotNull() & time.isNull()
    return log.withColumns(
        {
            "event_time": F.coalesce("event_time", time),
            "problem": F.coalesce("problem", F.when(is_too_large, "unparsable_time")),
        }
    ).drop("position")

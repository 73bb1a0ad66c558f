"""Chunks of users, which depend on the data alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import pandas as pd
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

MAX_PARTITIONS = 2000
"""Maximal number of partitions of a job over users. Beyond it a partition holds several chunks."""
DRAWS_PER_PARTITION = 50
"""Numbers hashed per partition. The chance that one of 2,000 partitions gets none is 2,000 · e⁻⁵⁰."""


def in_chunks(rows: DataFrame, num_rows: int, chunk_users: int) -> DataFrame:
    """Return the `num_rows` rows with a column `chunk`, sorted by user_id.

    Each chunk is in one partition. Users hash into a number of chunks that depends only on the number of rows
    and on `chunk_users`, the users per chunk.
    """
    num_chunks = number_of_chunks(num_rows, chunk_users)
    return partitioned(hashed(rows, num_chunks), num_chunks)


def hashed(rows: DataFrame, num_chunks: int, first: int = 0) -> DataFrame:
    """Return `rows` with a column `chunk`: the user's hash, from `first` on."""
    chunk = F.pmod(F.xxhash64("user_id"), F.lit(num_chunks)).cast("int") + F.lit(first)
    return rows.withColumn("chunk", chunk)


def numbered_by_activity(rows: DataFrame, chunk_users: int) -> DataFrame:
    """Return `rows` (user_id, last_event_time, …) with a column `chunk`, the latest first.

    Chunks of `chunk_users` users follow in the order of their last events, ties by user_id. Only the two
    columns go through one task for it.
    """
    latest_first = Window.orderBy(F.col("last_event_time").desc_nulls_last(), "user_id")
    chunk = ((F.row_number().over(latest_first) - 1) / chunk_users).cast("int")
    return rows.join(rows.select("user_id", chunk.alias("chunk")), "user_id")


def partitioned(rows: DataFrame, num_chunks: int) -> DataFrame:
    """Return rows with each `chunk` in one partition, sorted by user_id.

    `num_chunks` is the number of different chunks; their numbers are consecutive.
    """
    num_partitions = min(num_chunks, MAX_PARTITIONS)
    keys = F.array(*map(F.lit, _partition_keys(rows.sparkSession, num_partitions)))
    key = keys[F.pmod("chunk", F.lit(num_partitions))]
    return rows.repartition(num_partitions, key).sortWithinPartitions("chunk", "user_id")


def number_of_chunks(num_rows: int, chunk_users: int) -> int:
    """Return the number of chunks of `chunk_users` rows on average. At least 1."""
    return -(-num_rows // chunk_users) or 1


def by_chunk(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield one frame per chunk from the Arrow batches of a partition.

    The partition is one of `in_chunks`. A batch may end inside a chunk.
    """
    pending: list[pd.DataFrame] = []
    for batch in batches:
        for chunk, piece in batch.groupby("chunk", sort=False):
            if pending and pending[-1]["chunk"].iat[0] != chunk:
                yield pd.concat(pending, ignore_index=True)
                pending = []
            pending.append(piece)
    if pending:
        yield pd.concat(pending, ignore_index=True)


@lru_cache
def _partition_keys(session: SparkSession, num_partitions: int) -> list[int]:
    """Return for every partition a number that Spark's hash sends there.

    Without them, hashed chunk numbers would share some partitions and leave others empty.
    """
    numbers = session.range(num_partitions * DRAWS_PER_PARTITION).withColumn(
        "partition", F.pmod(F.hash(F.col("id").cast("int")), F.lit(num_partitions))
    )
    return [row[1] for row in sorted(numbers.groupBy("partition").agg(F.min("id").cast("int")).collect())]

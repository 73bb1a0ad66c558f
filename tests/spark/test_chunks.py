"""Users lie in chunks that the data alone fixes, one chunk per partition."""

from __future__ import annotations

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.spark import chunks
from allmrec.spark.chunks import by_chunk, in_chunks


def with_partition(chunked: DataFrame) -> pd.DataFrame:
    """The rows, with the Spark partition in which each lies."""
    return pd.DataFrame(chunked.withColumn("partition", F.spark_partition_id()).toPandas())


@pytest.mark.parametrize(
    ("num_users", "chunk_users", "num_chunks"), [(0, 10, 0), (5, 10, 1), (80, 10, 8), (210, 10, 21)]
)
def test_every_chunk_has_a_partition_of_its_own(
    spark: SparkSession, num_users: int, chunk_users: int, num_chunks: int
) -> None:
    users = spark.range(num_users).select(F.format_string("user-%05d", "id").alias("user_id"))
    placed = with_partition(in_chunks(users, num_users, chunk_users))
    assert len(placed) == num_users
    assert placed["chunk"].nunique() == placed["partition"].nunique() == num_chunks
    assert placed.groupby("chunk")["partition"].nunique().max() == 1 or not num_users


def test_chunks_that_share_a_partition_are_the_same_chunks(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = spark.range(200).select(F.format_string("user-%05d", "id").alias("user_id"))
    alone = with_partition(in_chunks(users, 200, 10)).set_index("user_id")["chunk"].sort_index()
    monkeypatch.setattr(chunks, "MAX_PARTITIONS", 3)
    shared = with_partition(in_chunks(users.repartition(7), 200, 10))
    assert shared["partition"].nunique() == 3
    pd.testing.assert_series_equal(shared.set_index("user_id")["chunk"].sort_index(), alone)
    for _, partition in shared.groupby("partition"):
        batches = [partition.iloc[start : start + 7] for start in range(0, len(partition), 7)]
        for chunk in by_chunk(batches):
            assert chunk["chunk"].nunique() == 1
            assert chunk["user_id"].is_monotonic_increasing
            assert len(chunk) == (alone == chunk["chunk"].iat[0]).sum()

"""Users lie in chunks that the data alone fixes, one chunk a partition."""

from __future__ import annotations

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from allmrec.runtime import workers
from allmrec.runtime.workers import by_chunk, in_chunks


@pytest.mark.parametrize(
    ("num_users", "chunk_users", "chunks"), [(0, 10, 0), (5, 10, 1), (80, 10, 8), (210, 10, 21)]
)
def test_every_chunk_has_a_partition_of_its_own(
    spark: SparkSession, num_users: int, chunk_users: int, chunks: int
) -> None:
    users = spark.range(num_users).select(F.format_string("user-%05d", "id").alias("user_id"))
    placed = (
        in_chunks(users, num_users, chunk_users).withColumn("partition", F.spark_partition_id()).toPandas()
    )
    assert len(placed) == num_users and placed["chunk"].nunique() == placed["partition"].nunique() == chunks
    assert placed.groupby("chunk")["partition"].nunique().max() == 1 or not num_users


def test_chunks_that_share_a_partition_are_the_same_chunks(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = spark.range(200).select(F.format_string("user-%05d", "id").alias("user_id"))
    alone = in_chunks(users, 200, 10).toPandas().set_index("user_id")["chunk"].sort_index()
    monkeypatch.setattr(workers, "MOST_PARTITIONS", 3)
    shared = (
        in_chunks(users.repartition(7), 200, 10).withColumn("partition", F.spark_partition_id()).toPandas()
    )
    assert shared["partition"].nunique() == 3
    pd.testing.assert_series_equal(shared.set_index("user_id")["chunk"].sort_index(), alone)
    for _, partition in shared.groupby("partition"):
        batches = [partition.iloc[start : start + 7] for start in range(0, len(partition), 7)]
        for chunk in by_chunk(batches):
            assert chunk["chunk"].nunique() == 1 and chunk["user_id"].is_monotonic_increasing
            assert len(chunk) == (alone == chunk["chunk"].iat[0]).sum()

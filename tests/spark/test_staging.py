"""Staging: finished chunks are read once and whole, half-written pieces not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from allmrec.tables.staging import Staging

SCHEMA = T.StructType([T.StructField("user_id", T.StringType()), T.StructField("run_id", T.StringType())])


@pytest.fixture
def staging(spark: SparkSession, tmp_path: Path) -> Staging:
    return Staging(spark, str(tmp_path / "_staging" / "2026-06-01" / "f"), SCHEMA)


def rows(spark: SparkSession, run_id: str, *chunks: int) -> DataFrame:
    """Two users for each chunk, as the run `run_id` scored them."""
    users = [(chunk, f"u{chunk}{number}", run_id) for chunk in chunks for number in range(2)]
    return spark.createDataFrame(users, "chunk int, user_id string, run_id string")


def test_nothing_is_staged_at_first(staging: Staging) -> None:
    assert staging.chunks() == set()
    assert staging.rows().columns == ["user_id", "run_id"]
    assert staging.rows().count() == 0


def test_chunks_that_two_runs_finished_are_read_from_one_of_them(
    spark: SparkSession, staging: Staging
) -> None:
    staging.add(rows(spark, "a", 0, 1), "a-0")
    staging.add(rows(spark, "b", 1, 2), "b-1")
    assert staging.chunks() == {0, 1, 2}
    found = staging.rows().collect()
    assert sorted(row.user_id for row in found) == ["u00", "u01", "u10", "u11", "u20", "u21"]
    assert len({row.run_id for row in found if row.user_id.startswith("u1")}) == 1


def test_a_piece_that_was_killed_is_as_if_it_were_not_there(spark: SparkSession, staging: Staging) -> None:
    staging.add(rows(spark, "a", 0), "a-0")
    staging.add(rows(spark, "a", 1), "a-1")
    (Path(staging.uri) / "a-1" / "_SUCCESS").unlink()
    assert staging.chunks() == {0}
    assert staging.rows().count() == 2


def test_what_is_deleted_leaves_no_file(spark: SparkSession, staging: Staging) -> None:
    staging.add(rows(spark, "a", 0), "a-0")
    staging.delete()
    assert not Path(staging.uri).exists()

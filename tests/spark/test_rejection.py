"""Rejected rows are kept once, with their first sighting, and nothing stays cached."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import DataFrame, SparkSession

from allmrec.data.rejection import hashes_of_user, merge_rejected, split_rejected
from allmrec.tables.delta import Tables

DAY = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
FIRST = ("import", "run 1", dt.datetime(2020, 1, 1))


def rejected(spark: SparkSession, *rows: tuple[str, str | None]) -> DataFrame:
    """Return the rejected ones of rows (id, reason) of a table with one column."""
    tagged = spark.createDataFrame([(*row, None) for row in rows], "id string, reason string, raw string")
    return split_rejected(tagged, "letters", ("id",))[1]


def stored(tables: Tables) -> dict[str, tuple]:
    rows = tables.read("rejected_rows").collect()
    return {row.row: (row.step, row.run_id, row.first_seen) for row in rows}


def test_first_sightings_stay_and_the_count_is_of_distinct_rows_seen(
    spark: SparkSession, tables: Tables
) -> None:
    twice = rejected(spark, ("a", "bad"), ("a", "bad"), ("b", None))
    assert merge_rejected(tables, twice, "import", "run 1", DAY) == 1
    assert stored(tables) == {'{"id":"a"}': FIRST}
    version = tables.version("rejected_rows")
    assert merge_rejected(tables, twice, "sequences", "run 2") == 1
    assert tables.version("rejected_rows") == version
    assert merge_rejected(tables, rejected(spark, ("a", "bad"), ("c", "bad")), "sequences", "run 3") == 2
    sightings = stored(tables)
    assert sightings['{"id":"a"}'] == FIRST
    step, run_id, first_seen = sightings['{"id":"c"}']
    assert (step, run_id) == ("sequences", "run 3")
    assert abs(dt.datetime.now(dt.timezone.utc).replace(tzinfo=None) - first_seen) < dt.timedelta(hours=1)


def test_without_a_rejected_row_nothing_is_written_and_nothing_stays_cached(
    spark: SparkSession, tables: Tables
) -> None:
    cached = spark.sparkContext._jsc.getPersistentRDDs
    before = set(cached())
    assert merge_rejected(tables, rejected(spark, ("a", None)), "sequences", "run 1") == 0
    assert not tables.exists("rejected_rows")
    assert merge_rejected(tables, rejected(spark, ("a", "bad")), "sequences", "run 1") == 1
    assert set(cached()) <= before


def test_a_user_is_found_in_rejected_rows_whatever_the_column_and_however_the_number_was_written(
    spark: SparkSession,
) -> None:
    raw = {
        "text": '{"customer_id":"5","sku":null}',
        "decimal": '{"customer_id":5.00,"sku":null}',
        "line": '{"line":"5,,2026-01-01"}',
        "other user": '{"customer_id":50,"sku":null}',
        "other decimal": '{"customer_id":"5.01","sku":null}',
    }
    rows = spark.createDataFrame(list(raw.items()), "row_hash string, row string")
    assert sorted(hashes_of_user(rows, "5")) == ["decimal", "line", "text"]

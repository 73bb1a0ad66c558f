"""Writers at the same time: all that may end well does, and of two on one date the newer one's rows stay."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.data.rejection import merge_rejected
from allmrec.errors import PassingError, SupersededError
from allmrec.tables import delta
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES
from tests.spark.test_tables import DAY, NEXT_DAY, NOW, interactions, sequences

NUM_WRITERS = 6


def at_once(work: Callable[[int], object]) -> list[object]:
    """Call `work` with 0, 1, … in threads of their own and return what it returns."""
    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        return list(pool.map(work, range(NUM_WRITERS)))


def test_runs_are_recorded_by_many_at_once(spark: SparkSession, tables: Tables) -> None:
    row = {"step": "score", "status": "started", "started_at": NOW, "run_date": DAY}
    at_once(lambda number: Tables(spark, tables.root).append("runs", {**row, "run_id": f"run-{number}"}))
    assert sorted(row.run_id for row in tables.read("runs").collect()) == [
        f"run-{n}" for n in range(NUM_WRITERS)
    ]


def test_rejected_rows_are_merged_by_many_at_once_and_none_is_there_twice(
    spark: SparkSession, tables: Tables
) -> None:
    def rejected(number: int) -> DataFrame:
        rows = [("interactions", f"{key:064d}", "null_time", "{}") for key in (0, 1, 100 + number)]
        return spark.createDataFrame(rows, "table string, row_hash string, reason string, row string")

    at_once(
        lambda number: merge_rejected(
            Tables(spark, tables.root), rejected(number), "sequences", f"run-{number}"
        )
    )
    found = tables.read("rejected_rows")
    assert found.count() == found.select("row_hash").distinct().count() == NUM_WRITERS + 2


def test_two_imports_at_once_into_new_tables_leave_every_row_once(
    spark: SparkSession, tables: Tables
) -> None:
    rows = [("u", f"i{number}", NOW, 5.0, None) for number in range(20)]
    counts = at_once(
        lambda number: Tables(spark, tables.root).merge("interactions", interactions(spark, *rows))
    )
    found = tables.read("interactions")
    assert found.count() == found.select("item_id").distinct().count() == 20
    assert sorted(counts) == [0] * (NUM_WRITERS - 1) + [20]  # type: ignore[type-var]


def test_different_dates_are_replaced_at_once(spark: SparkSession, tables: Tables) -> None:
    days = [DAY + dt.timedelta(days=number) for number in range(NUM_WRITERS)]
    at_once(
        lambda number: Tables(spark, tables.root).replace_date(
            "user_sequences", sequences(spark, "u", run_date=days[number]), days[number], number
        )
    )
    assert sorted(row.run_date for row in tables.read("user_sequences").collect()) == days


def test_a_run_that_a_newer_one_came_before_cannot_write_any_more(
    spark: SparkSession, tables: Tables
) -> None:
    tables.replace_date("user_sequences", sequences(spark, "newer"), DAY, order=2)
    version = tables.version("user_sequences")
    with pytest.raises(SupersededError, match="newer run"):
        tables.replace_date("user_sequences", sequences(spark, "older"), DAY, order=1)
    assert tables.version("user_sequences") == version
    assert [row.user_id for row in tables.read_date("user_sequences", DAY).collect()] == ["newer"]
    tables.replace_date("user_sequences", sequences(spark, "u", run_date=NEXT_DAY), NEXT_DAY, order=1)


def test_of_many_on_one_date_the_newest_ones_rows_stay_and_never_a_mixture(
    spark: SparkSession, tables: Tables
) -> None:
    def write(number: int) -> str:
        rows = sequences(spark, *(f"{number}-{user}" for user in range(5)))
        try:
            Tables(spark, tables.root).replace_date("user_sequences", rows, DAY, order=number)
        except SupersededError:
            return "superseded"
        return "written"

    outcomes = at_once(write)
    assert outcomes[-1] == "written"
    users = [row.user_id for row in tables.read_date("user_sequences", DAY).collect()]
    assert sorted(users) == [f"{NUM_WRITERS - 1}-{user}" for user in range(5)]


def test_what_was_written_is_told_by_its_digest_also_after_optimize(
    spark: SparkSession, tables: Tables
) -> None:
    one = tables.replace_date("user_sequences", sequences(spark, "u1", "u2").repartition(2), DAY, order=1)
    DeltaTable.forPath(spark, tables.path("user_sequences")).optimize().executeCompaction()
    assert tables.written("user_sequences", DAY)[1:] == one[1:] == (2, one.digest)
    tables.replace_date("user_sequences", sequences(spark, "u1", "u3"), DAY, order=2)
    assert tables.written("user_sequences", DAY).digest != one.digest


def test_a_commit_that_always_comes_second_ends_as_trouble_that_passes(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "MAX_TRIES", 2)
    tries = []

    def conflict() -> None:
        tries.append(1)
        raise PySparkConflict("[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] a concurrent transaction added data")

    from pyspark.errors import PySparkException as PySparkConflict

    with pytest.raises(PassingError, match="runs: another run wrote to it at the same time"):
        tables.retried("runs", conflict)
    assert len(tries) == 2


def test_commits_say_which_run_made_them(spark: SparkSession, tables: Tables) -> None:
    mark = {"run_id": "run-1", "fingerprint": "f", "input_versions": {"items": 3}}
    with tables.marked_commits(mark):
        tables.replace_date("user_sequences", sequences(spark, "u"), DAY, order=1)
        tables.merge("interactions", interactions(spark, ("u", "i", NOW, 5.0, None)))
    tables.merge("interactions", interactions(spark, ("u", "j", NOW, 5.0, None)))
    marks = {
        name: [json.loads(row[0]) if row[0] else None for row in history.select("userMetadata").collect()]
        for name in ("user_sequences", "interactions")
        for history in [DeltaTable.forPath(spark, tables.path(name)).history().orderBy("version")]
    }
    assert marks == {"user_sequences": [mark, mark], "interactions": [mark, mark, None]}


def test_tables_of_an_older_version_get_the_columns_that_are_new_and_keep_their_rows(
    spark: SparkSession, tables: Tables
) -> None:
    new = {
        "candidates": ("inputs_hash",),
        "runs": ("run_order", "outputs", "gates", "overridden", "llm_dtype", "broken"),
    }
    for name, columns in new.items():
        old = spark.createDataFrame([], TABLES[name].schema).drop(*columns)
        old.write.format("delta").partitionBy(*TABLES[name].partitioned_by).save(tables.path(name))
    row = {"run_id": "old", "step": "score", "status": "done", "started_at": NOW}
    old_row = spark.createDataFrame(
        [tuple(row.values())], "run_id string, step string, status string, started_at timestamp"
    )
    old_row.write.format("delta").mode("append").save(tables.path("runs"))
    assert tables.read("runs").select("run_order").first() == (None,)
    tables.append("runs", {**row, "run_id": "new", "run_order": 7, "outputs": {"candidates": (1, 2, "3")}})
    rows = {row.run_id: row.run_order for row in tables.read("runs").collect()}
    assert rows == {"old": None, "new": 7}
    candidates = spark.createDataFrame(
        [(DAY, "u", ["a"], [0.5], [0.1], ["cf"], "h")], TABLES["candidates"].schema
    )
    tables.replace_date("candidates", candidates, DAY, order=1)
    assert [row.inputs_hash for row in tables.read_date("candidates", DAY).collect()] == ["h"]


def test_a_version_is_found_by_the_end_of_a_day_as_long_as_its_files_are_there(
    spark: SparkSession, tables: Tables
) -> None:
    for item in ("i", "j"):
        tables.merge("interactions", interactions(spark, ("u", item, NOW, 5.0, None)))
    dated(Path(tables.path("interactions")), {0: DAY, 1: DAY, 2: NEXT_DAY})
    end_of_day = dt.datetime(NEXT_DAY.year, NEXT_DAY.month, NEXT_DAY.day, tzinfo=dt.timezone.utc)
    assert tables.version_at("interactions", end_of_day) == 1
    assert tables.version_at("interactions", end_of_day + dt.timedelta(days=1)) == 2
    assert tables.version_at("interactions", end_of_day - dt.timedelta(days=9)) is None
    uris = tables.read("interactions", 1).inputFiles()
    Path(uris[0].removeprefix("file://").removeprefix("file:")).unlink()
    assert tables.version_at("interactions", end_of_day) is None


def dated(table: Path, days: dict[int, dt.date]) -> None:
    """Let commits of a table be of these days, at noon: Delta goes by the files' times."""
    import os

    for version, day in days.items():
        noon = dt.datetime(day.year, day.month, day.day, 12, tzinfo=dt.timezone.utc).timestamp()
        os.utime(table / "_delta_log" / f"{version:020d}.json", (noon, noon))


def test_a_digest_sees_a_row_that_is_there_twice(spark: SparkSession, tables: Tables) -> None:
    tables.replace_date("user_sequences", sequences(spark, "u1", "u2"), DAY, order=1)
    before = tables.written("user_sequences", DAY)
    again = tables.read_date("user_sequences", DAY).where(F.col("user_id") == "u1")
    again.write.format("delta").mode("append").save(tables.path("user_sequences"))
    after = tables.written("user_sequences", DAY)
    assert (after.num_rows, after.digest) != (before.num_rows, before.digest)

"""Paths with the signs of a pattern, of SQL or of a URL: our tables and files are read where they lie."""

from __future__ import annotations

import ast
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from allmrec.spark.literal_paths import read_parquet
from allmrec.tables import maintenance
from allmrec.tables.delta import Tables
from allmrec.tables.delta_log import added_rows
from allmrec.tables.schemas import TABLES
from allmrec.tables.sql_text import delta_at
from allmrec.tables.staging import Staging

pytestmark = pytest.mark.reported

NAMES = ("shop [1]", "shop{a,b}", "shop*", "shop?", "[a-z]", "{a", "b]", "^[!a]", "a\\b", "50%25 #1 ä")
NAMES_OF_SHOPS = ("shop [1]", "shop{a,b}", "shop*?", "a`b", "O'Brien's")
NO_HISTORY = "'delta.deletedFileRetentionDuration' = 'interval 0 hours'"
CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
SOURCES = Path(__file__).parents[2] / "allmrec"


@pytest.mark.parametrize("name", NAMES)
def test_parquet_is_read_where_it_lies(name: str, spark: SparkSession, tmp_path: Path) -> None:
    folder = beside_others(tmp_path, name)
    for name in ("rows", "others"):
        spark.range(3).write.parquet(f"{folder}/{name}")
    assert read_parquet(spark, f"{folder}/rows").count() == 3
    schema = T.StructType([T.StructField("id", T.LongType())])
    both = read_parquet(spark, f"{folder}/rows", f"{folder}/others", schema=schema)
    assert sorted(row.id for row in both.collect()) == [0, 0, 1, 1, 2, 2]


def beside_others(base: Path, name: str) -> Path:
    """Return a folder beside others that its name would match as a pattern."""
    for other in ("shop 1", "shopa", "shopb", "shopx", "a", "b", "ab"):
        (base / other / "rows").mkdir(parents=True)
    return base / name


@pytest.mark.parametrize("name", NAMES_OF_SHOPS)
def test_what_is_staged_is_read_where_it_lies(name: str, spark: SparkSession, tmp_path: Path) -> None:
    folder = beside_others(tmp_path, name)
    staging = Staging(spark, f"{folder}/_staging", T.StructType([T.StructField("user_id", T.StringType())]))
    staging.add(spark.createDataFrame([("u", 3)], "user_id string, chunk int"), "run-0")
    assert staging.chunks() == {3}
    assert [row.user_id for row in staging.rows().collect()] == ["u"]
    staging.delete()
    assert staging.chunks() == set()


@pytest.mark.parametrize("name", NAMES_OF_SHOPS)
def test_a_table_is_written_migrated_read_and_maintained_where_it_lies(
    name: str, spark: SparkSession, tmp_path: Path
) -> None:
    folder = beside_others(tmp_path, name)
    day = date(2026, 6, 1)
    old = spark.createDataFrame([], TABLES["runs"].schema).drop("broken")
    old.write.format("delta").save(f"{folder}/runs")
    tables = Tables(spark, str(folder))
    row = {
        "run_id": "r",
        "step": "score",
        "status": "done",
        "started_at": datetime(2026, 6, 1),
        "run_date": day,
    }
    tables.append("runs", row)
    tables.append("runs", {**row, "run_id": "s"})
    assert tables.read("runs").count() == 2
    newest = tables.version("runs")
    added = added_rows(spark, tables.path("runs"), newest - 1, newest)
    assert added is not None
    assert [one.run_id for one in added.collect()] == ["s"]
    assert tables.version_at("runs", datetime.now(timezone.utc) + timedelta(days=1)) == newest
    assert maintenance.compact(tables, "runs", but=()) == (2, 1)
    maintenance.keep_history(tables, "runs", 500, None)
    assert maintenance.vacuum(tables, "runs", dry_run=True).num_files == 0
    tables.spark.sql(f"ALTER TABLE {delta_at(tables.path('runs'))} SET TBLPROPERTIES ({NO_HISTORY})")
    tables.spark.conf.set(CHECK, "false")
    try:
        assert maintenance.vacuum(tables, "runs", dry_run=False).num_files > 0
    finally:
        tables.spark.conf.unset(CHECK)
    assert len(list((folder / "runs").glob("*.parquet"))) == 1
    assert tables.read("runs").count() == 2


def test_every_plain_read_of_parquet_is_the_one_that_takes_no_patterns() -> None:
    readers = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and node.func.attr == "parquet" and "write" not in ast.unparse(node.func):  # type: ignore[attr-defined]
                readers.append(str(path.relative_to(SOURCES)))
    assert set(readers) == {"spark/literal_paths.py"}

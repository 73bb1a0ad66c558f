"""A table is not its path and version, a column not its name: others at their place are told apart."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from allmrec.config import load
from allmrec.errors import InputError, TableError
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.needed import Needed
from allmrec.runtime.night import Night, Step
from allmrec.runtime.runs import erased_versions
from allmrec.steps.forget import run_forget
from allmrec.tables.delta import Written
from tests.spark.test_advance import FIRST, LOG, SECOND, Shop, at, event, opened

pytestmark = pytest.mark.reported


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path) -> Shop:
    return opened(Shop(spark, tmp_path))


def dropped(shop: Shop, table: str) -> None:
    """Delete a table as its owner would, in another process: Delta's own cache does not see it there."""
    shutil.rmtree(shop.root / table)
    shop.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]


def reads_all_of_it(shop: Shop, reason: str) -> dict[str, Any]:
    """Run the second night: it reads the whole log for this reason, and writes the rows of the whole log."""
    said = shop.whole()
    assert reason in said
    found = shop.rows(SECOND)
    shop.night(SECOND, force=True, refresh=True)
    assert found == shop.rows(SECOND)
    return found


@pytest.mark.parametrize(
    "num_commits", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(3, marks=pytest.mark.long)]
)
def test_a_log_that_was_dropped_and_written_again_is_another_log(shop: Shop, num_commits: int) -> None:
    """The first night read version 1: the new table ends before, there, or after that."""
    dropped(shop, "interactions")
    for number in range(num_commits):
        shop.sell(event("few", "bcd"[number], at(4 + number)), event("other", "a", at(11)))
    found = reads_all_of_it(shop, "is another table than in the night of")
    assert found["few"].item_ids == ["b", "c", "d"][:num_commits]
    assert "long" not in found


def test_a_catalogue_that_was_dropped_and_written_again_is_another_catalogue(shop: Shop) -> None:
    dropped(shop, "items")
    shop.list_items("a", "later")
    assert reads_all_of_it(shop, "is another table than in the night of")["few"].item_ids == ["a", "later"]


MAPPED = (
    "CREATE TABLE delta.`{path}` (user_id STRING, item_id STRING, event_time TIMESTAMP, rating DOUBLE, "
    "stars DOUBLE, event_type STRING) USING DELTA TBLPROPERTIES ('delta.columnMapping.mode' = 'name'{more})"
)


def mapped_shop(spark: SparkSession, root: Path, more: str = "") -> Shop:
    """A shop whose log maps columns; ratings of 5 count, of `stars` half of the events have 1."""
    shop = Shop(spark, root, "sequences.min_rating=3")
    spark.sql(MAPPED.format(path=root / "interactions", more=more))
    rows = [
        (f"u{user}", item, at(1 + place), 5.0, 1.0 if (user + place) % 2 else 5.0, "buy")
        for user in range(6)
        for place, item in enumerate("abcdef")
    ]
    columns = (
        "user_id string, item_id string, event_time timestamp, rating double, stars double, event_type string"
    )
    shop.write("interactions", rows, columns)
    shop.list_items(*"abcdef")
    shop.night(FIRST)
    return shop


@pytest.mark.parametrize(
    "statements",
    [
        ("RENAME COLUMN rating TO old_rating", "RENAME COLUMN stars TO rating"),
        pytest.param(("DROP COLUMN rating", "ADD COLUMN rating DOUBLE"), marks=pytest.mark.long),
        pytest.param(("DROP COLUMN rating", "RENAME COLUMN stars TO rating"), marks=pytest.mark.long),
        ("RENAME COLUMN user_id TO buyer", "RENAME COLUMN event_type TO user_id"),
    ],
)
def test_a_name_that_stands_for_another_column_since(
    spark: SparkSession, tmp_path: Path, statements: tuple[str, ...]
) -> None:
    shop = mapped_shop(spark, tmp_path)
    for statement in statements:
        shop.sql(f"ALTER TABLE {{log}} {statement}")
    reads_all_of_it(shop, "were renamed, or dropped and added, since")


def test_a_column_that_was_added_or_dropped_changes_no_other_one(spark: SparkSession, tmp_path: Path) -> None:
    shop = mapped_shop(spark, tmp_path)
    shop.sql("ALTER TABLE {log} ADD COLUMN channel STRING")
    shop.sql("ALTER TABLE {log} DROP COLUMN stars")
    shop.write("interactions", [("u1", "a", at(11), 5.0, "buy", "web")], f"{LOG}, channel string")
    shop.sell(event("u1", "unknown", at(11)))
    shop.advanced()
    assert shop.rows(SECOND)["u1"].item_ids[-1] == "a"


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE OR REPLACE TABLE {log} USING DELTA AS SELECT * FROM {log} WHERE user_id <> 'few'",),
        pytest.param(("RESTORE TABLE {log} TO VERSION AS OF 0",), marks=pytest.mark.long),
        pytest.param(
            ("DELETE FROM {log} WHERE user_id = 'few'", "RESTORE TABLE {log} TO VERSION AS OF 1"),
            marks=pytest.mark.long,
        ),
        ("INSERT OVERWRITE {log} SELECT * FROM {log} WHERE item_id <> 'a'",),
    ],
)
def test_a_log_that_was_replaced_restored_or_overwritten(shop: Shop, statements: tuple[str, ...]) -> None:
    for statement in statements:
        shop.sql(statement)
    reads_all_of_it(shop, "reads the whole log")


def test_a_clone_in_place_of_the_log_is_another_log(shop: Shop) -> None:
    clone = shop.root / "clone"
    shop.sql(f"CREATE TABLE delta.`{clone}` SHALLOW CLONE {{log}}")
    shop.sql(f"DELETE FROM delta.`{clone}` WHERE user_id = 'few'")
    shop.config = load(
        [], [f"tables.root={shop.root}", "sequences.max_history=4", f"tables.interactions.path={clone}"]
    )
    assert reads_all_of_it(shop, "other settings, tables or code")["few"].seen_item_ids == []


def test_a_rerun_reads_the_newest_version_where_its_table_is_gone(shop: Shop) -> None:
    shop.night(FIRST)
    assert any("already there" in line for line in shop.said)
    dropped(shop, "interactions")
    shop.sell(event("few", "b", at(3)))
    shop.sell(event("few", "c", at(4)))
    shop.said.clear()
    shop.night(FIRST)
    assert any("is another table than the date's last run read" in line for line in shop.said)
    assert set(shop.rows(FIRST)) == {"few", "named"}


def test_a_step_that_reads_a_table_which_was_replaced_since_is_refused(shop: Shop) -> None:
    with Context.open(shop.spark, shop.config, Report(), RunOptions()) as context:
        sequences = Night(context, FIRST).done("sequences")
        dropped(shop, "items")
        shop.list_items("a", "b", "c")
        with pytest.raises(TableError, match="was replaced by another one since the run"):
            Inputs.of_step(sequences).catalogue()


def test_a_nightly_table_that_was_written_again_is_not_believed(shop: Shop) -> None:
    """Also where it ends at the version that the record names."""
    path = shop.root / "user_sequences"
    frame = shop.spark.read.format("delta").load(str(path))
    rows = [tuple(row) for row in frame.where("user_id <> 'few'").collect()]
    with Context.open(shop.spark, shop.config, Report(shop.said.append), RunOptions()) as context:
        row = Night(context, FIRST).latest("sequences", "done")
    assert row is not None
    schema = frame.schema
    dropped(shop, "user_sequences")
    last = row.outputs["user_sequences"].version
    for number in range(last + 1):
        again = shop.spark.createDataFrame(rows[number:] if number == last else [rows[number]], schema)
        again.write.format("delta").partitionBy("run_date").mode("append").save(str(path))
    with Context.open(shop.spark, shop.config, Report(shop.said.append), RunOptions()) as context:
        assert context.tables.newest("user_sequences") == last
        assert not Step(Night(context, FIRST), "sequences", str(row.fingerprint)).is_there()


def test_maintenance_and_erasures_leave_versions_of_former_tables_aside(shop: Shop) -> None:
    shop.sell(event("few", "b", at(4)))
    shop.night(SECOND)
    with Context.open(shop.spark, shop.config, Report(), RunOptions()) as context:
        run_forget(context, "bad")
    dropped(shop, "interactions")
    shop.sell(event("few", "b", at(3)))
    with Context.open(shop.spark, shop.config, Report(), RunOptions()) as context:
        assert "interactions" not in Needed.of(context).versions([])
        ids = {"interactions": context.tables.table_id("interactions")}
        assert "interactions" not in erased_versions(Night(context, FIRST).records(), ids)
        assert Inputs.pinned(Night(context, FIRST), "sequences").versions["interactions"] == 0
    shop.night(FIRST)
    assert set(shop.rows(FIRST)) == {"few", "named"}


def test_records_of_an_older_version_have_no_ids_and_are_believed(shop: Shop) -> None:
    with Context.open(shop.spark, shop.config, Report(), RunOptions()) as context:
        with Step(Night(context, SECOND), "sequences", "mark").recorded(
            {"interactions": 0, "items": 0}, {}
        ) as run:
            run.outputs["user_sequences"] = Written(0, 0, "")
        context.records.clear()
        shop.sql(f"UPDATE delta.`{shop.root}/runs` SET table_ids = NULL")
        assert Inputs.pinned(Night(context, SECOND), "sequences").versions == {"interactions": 0, "items": 0}


def test_folders_of_partitions_keep_the_texts_of_their_names(spark: SparkSession, tmp_path: Path) -> None:
    rows = [("u1", "001", at(1)), ("u1", "002", at(2)), ("u2", "001", at(3))]
    frame = spark.createDataFrame(rows, "user_id string, item_id string, event_time timestamp")
    frame.write.partitionBy("item_id").parquet(str(tmp_path / "log"))
    shop = Shop(spark, tmp_path, f"tables.interactions={{path: {tmp_path / 'log'}, format: parquet}}")
    shop.list_items("001", "002", "1")
    shop.night(FIRST)
    found = {user: row.item_ids for user, row in shop.rows(FIRST).items()}
    assert found == {"u1": ["001", "002"], "u2": ["001"]}


def test_a_night_of_which_every_row_is_rejected_is_not_done(spark: SparkSession, tmp_path: Path) -> None:
    shop = Shop(spark, tmp_path)
    shop.list_items("001", "002")
    shop.sell(event("u1", "1", at(1)), event("u2", "2", at(2)), event(None, "001", at(2)))
    with pytest.raises(
        InputError, match=r"every row was rejected \(2 × item_not_in_catalogue, 1 × null_user_id"
    ):
        shop.night(FIRST)
    assert {reason for _, reason in shop.rejected()} == {"item_not_in_catalogue", "null_user_id"}
    with Context.open(spark, shop.config, Report(), RunOptions()) as context:
        assert Night(context, FIRST).latest("sequences", "done") is None
    shop.sell(event("u1", "001", at(3)))
    shop.night(FIRST, refresh=True)
    assert shop.rows(FIRST)["u1"].item_ids == ["001"]


def test_a_log_without_rows_before_the_cut_off_is_no_error(shop: Shop) -> None:
    shop.night(dt.date(2026, 4, 1))
    assert set(shop.rows(dt.date(2026, 4, 1))) == {"few", "named"}

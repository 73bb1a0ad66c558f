"""Delta tables: what is written is what is read, one commit at a time, a bad table is named in one line."""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable as IndependentTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from allmrec.errors import ConfigError, TableError
from allmrec.spark import filesystem
from allmrec.spark.troubles import as_user_error
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES

DAY, NEXT_DAY = dt.date(2014, 7, 21), dt.date(2014, 7, 22)
NOW = dt.datetime(2014, 7, 21, 12)
ORDERS = itertools.count(1)
"""Every commit of these tests is a newer run's."""


def sequences(spark: SparkSession, *users: str, run_date: dt.date = DAY) -> DataFrame:
    rows = [(run_date, user, ["a", "b"], [NOW, NOW], 2, NOW, ["a", "b"]) for user in users]
    return spark.createDataFrame(rows, TABLES["user_sequences"].schema)


def interactions(spark: SparkSession, *rows: tuple) -> DataFrame:
    return spark.createDataFrame(
        rows, "user_id string, item_id string, event_time timestamp, rating double, event_type string"
    )


def independent_rows(tables: Tables, name: str) -> list[dict]:
    """Read the table without Spark."""
    uris = IndependentTable(tables.path(name)).file_uris()
    return [row for uri in uris for row in pq.ParquetFile(uri.removeprefix("file://")).read().to_pylist()]


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def test_replacing_a_date_is_one_commit_and_leaves_other_dates_alone(
    spark: SparkSession, tables: Tables
) -> None:
    tables.replace_date("user_sequences", sequences(spark, "u1", "u2"), DAY, next(ORDERS))
    tables.replace_date("user_sequences", sequences(spark, "u1", run_date=NEXT_DAY), NEXT_DAY, next(ORDERS))
    before = tables.version("user_sequences")
    tables.replace_date("user_sequences", sequences(spark, "u3"), DAY, next(ORDERS))
    assert tables.version("user_sequences") == before + 1
    assert [row.user_id for row in tables.read_date("user_sequences", DAY).collect()] == ["u3"]
    assert [row.user_id for row in tables.read_date("user_sequences", NEXT_DAY).collect()] == ["u1"]
    assert sorted(row["user_id"] for row in independent_rows(tables, "user_sequences")) == ["u1", "u3"]


def test_replacing_a_date_twice_leaves_the_same_rows(spark: SparkSession, tables: Tables) -> None:
    for _ in range(2):
        tables.replace_date(
            "user_sequences", sequences(spark, "u1", "u2").drop("run_date"), DAY, next(ORDERS)
        )
    assert sorted(row.user_id for row in tables.read("user_sequences").collect()) == ["u1", "u2"]


def test_however_many_tasks_made_a_small_nights_rows_they_are_one_file(
    spark: SparkSession, tables: Tables
) -> None:
    rows = sequences(spark, *(f"u{number}" for number in range(40))).repartition(7, "user_id")
    tables.replace_date("user_sequences", rows, DAY, next(ORDERS))
    assert len(IndependentTable(tables.path("user_sequences")).file_uris()) == 1
    assert tables.read("user_sequences").count() == 40


def test_an_empty_night_replaces_a_date_by_nothing(spark: SparkSession, tables: Tables) -> None:
    tables.replace_date("user_sequences", sequences(spark, "u1"), DAY, next(ORDERS))
    tables.replace_date("user_sequences", sequences(spark), DAY, next(ORDERS))
    assert tables.read_date("user_sequences", DAY).isEmpty()


def test_constraints_refuse_bad_rows_and_leave_the_table_as_it_was(
    spark: SparkSession, tables: Tables
) -> None:
    tables.replace_date("user_sequences", sequences(spark, "u1"), DAY, next(ORDERS))
    before = tables.version("user_sequences")
    schema = TABLES["user_sequences"].schema
    lists = (["a"], list[dt.datetime]()), (["a", "b"], [NOW, NOW])
    for bad in ((DAY, "u2", *pair, 1, NOW, list[str]()) for pair in lists):
        frame, order = spark.createDataFrame([bad], schema), next(ORDERS)
        with pytest.raises(TableError, match="breaks a constraint") as error:
            tables.replace_date("user_sequences", frame, DAY, order)
        one_line(error)
    nullable = (
        "run_date date, user_id string, item_ids array<string>, event_times array<timestamp>, "
        "num_interactions long, last_event_time timestamp"
    )
    frame = spark.createDataFrame([(DAY, None, [], [], 0, None)], nullable)
    with pytest.raises(TableError, match="lacks a required value") as error:
        tables.replace_date("user_sequences", frame, DAY, next(ORDERS))
    one_line(error)
    with pytest.raises(TableError, match="another run date") as error:
        tables.replace_date("user_sequences", sequences(spark, "u9", run_date=NEXT_DAY), DAY, next(ORDERS))
    one_line(error)
    assert tables.version("user_sequences") == before


def test_recommendations_refuse_unknown_sources_and_probabilities_of_popular_lists(
    spark: SparkSession, tables: Tables
) -> None:
    schema = TABLES["recommendations"].schema
    good = (DAY, "u", 1, "i", 0.5, 0.3, None, None, None, None, None, "cf", None, "b", "r", NOW, None, "h")
    tables.replace_date("recommendations", spark.createDataFrame([good], schema), DAY, next(ORDERS))
    for position, value in ((11, "carried"), (11, "popular"), (2, 0), (4, float("nan")), (5, 1.5)):
        bad = (*good[:position], value, *good[position + 1 :])
        with pytest.raises(TableError, match="breaks a constraint"):
            tables.replace_date("recommendations", spark.createDataFrame([bad], schema), DAY, next(ORDERS))


def test_columns_and_types_to_be_written_are_checked_by_name(spark: SparkSession, tables: Tables) -> None:
    good = sequences(spark, "u1")
    with pytest.raises(TableError, match="no column item_ids"):
        tables.replace_date("user_sequences", good.drop("item_ids"), DAY, next(ORDERS))
    with pytest.raises(TableError, match="columns surplus"):
        tables.replace_date("user_sequences", good.selectExpr("*", "1 AS surplus"), DAY, next(ORDERS))
    narrow = good.withColumn("num_interactions", good.num_interactions.cast("int"))
    with pytest.raises(TableError, match="num_interactions is int"):
        tables.replace_date("user_sequences", narrow, DAY, next(ORDERS))


def test_a_merge_inserts_and_updates_and_makes_no_commit_when_nothing_changes(
    spark: SparkSession, tables: Tables
) -> None:
    first = interactions(spark, ("u", "i", NOW, 5.0, None), ("u", "j", NOW, None, None))
    assert tables.merge("interactions", first) == 2
    before = tables.version("interactions")
    assert tables.merge("interactions", first) == 0
    assert tables.merge("interactions", first.drop("event_type")) == 0
    assert tables.version("interactions") == before
    assert (
        tables.merge(
            "interactions",
            interactions(spark, ("u", "i", NOW, 4.0, None), ("v", "i", NOW, 1.0, None)),
            update=True,
        )
        == 2
    )
    assert tables.version("interactions") == before + 1
    assert tables.merge("interactions", interactions(spark, ("u", "i", NOW, 1.0, None)), update=False) == 0
    assert {(r["user_id"], r["item_id"]): r["rating"] for r in independent_rows(tables, "interactions")} == {
        ("u", "i"): 4.0,
        ("u", "j"): None,
        ("v", "i"): 1.0,
    }


def test_events_that_differ_in_their_type_are_all_kept_and_a_merge_twice_changes_nothing(
    spark: SparkSession, tables: Tables
) -> None:
    # A table of a version that kept one type per user, item and time.
    tables.merge(
        "interactions", interactions(spark, ("u", "i", NOW, None, "cart"), ("v", "i", NOW, 1.0, None))
    )
    rows = interactions(
        spark,
        *(("u", "i", NOW, None, kind) for kind in ("cart", "purchase", "view", None)),
        ("v", "i", NOW, 2.0, None),
    )
    assert tables.merge("interactions", rows) == 4
    before = tables.version("interactions")
    assert tables.merge("interactions", rows) == 0
    assert tables.version("interactions") == before
    assert sorted(
        (row["user_id"], str(row["event_type"]), row["rating"])
        for row in independent_rows(tables, "interactions")
    ) == [
        ("u", "None", None),
        ("u", "cart", None),
        ("u", "purchase", None),
        ("u", "view", None),
        ("v", "None", 2.0),
    ]


def test_a_key_that_is_merged_twice_at_once_is_refused(spark: SparkSession, tables: Tables) -> None:
    tables.merge("interactions", interactions(spark, ("u", "i", NOW, 5.0, None)))
    with pytest.raises(TableError, match="have a key twice"):
        tables.merge(
            "interactions", interactions(spark, ("u", "i", NOW, 4.0, None), ("u", "i", NOW, 3.0, None))
        )


def test_rows_with_maps_are_merged_without_a_commit_when_they_are_the_same(
    spark: SparkSession, tables: Tables
) -> None:
    run = {
        "run_id": "r",
        "step": "score",
        "status": "started",
        "started_at": NOW,
        "run_date": DAY,
        "fingerprint": "f",
        "input_versions": {"items": 3, "interactions": 1},
        "counts": {},
        "run_order": 7,
        "outputs": {"candidates": (3, 2, "12")},
        "gates": {"max_short_share": 0.5},
        "overridden": ["max_short_share"],
        "llm_dtype": "float32",
    }
    schema = TABLES["runs"].schema
    assert set(run) <= set(schema.names)
    frame = spark.createDataFrame([tuple(map(run.get, schema.names))], schema)
    assert tables.merge("runs", frame) == 1
    before = tables.version("runs")
    assert tables.merge("runs", frame) == 0
    assert tables.version("runs") == before
    assert tables.merge("runs", frame.withColumn("input_versions", frame.counts)) == 1


def test_a_version_is_read_as_it_was(spark: SparkSession, tables: Tables) -> None:
    tables.merge("interactions", interactions(spark, ("u", "i", NOW, 5.0, None)))
    old = tables.version("interactions")
    tables.merge("interactions", interactions(spark, ("u", "j", NOW, 5.0, None)))
    assert tables.read("interactions", old).count() == 1
    assert tables.read("interactions").count() == 2
    with pytest.raises(TableError, match="version 99 asked"):
        tables.read("interactions", 99)


def test_a_row_is_added_in_one_commit_and_columns_that_are_not_given_are_null(tables: Tables) -> None:
    for status in ("started", "done"):
        tables.append("runs", {"run_id": "it's", "step": "score", "status": status, "started_at": NOW})
    rows = tables.read("runs").collect()
    assert {(row.run_id, row.step, row.status, row.counts) for row in rows} == {
        ("it's", "score", "started", None),
        ("it's", "score", "done", None),
    }
    assert tables.version("runs") == 2, "one commit to create it, and one per row"


def test_an_input_table_may_lack_optional_columns_and_may_have_more(
    spark: SparkSession, tables: Tables
) -> None:
    frame = spark.createDataFrame([("i", "A title", 3)], "item_id string, title string, stock int")
    frame.write.format("delta").save(tables.path("items"))
    read = tables.read("items")
    assert read.columns == TABLES["items"].schema.fieldNames()
    assert [row.asDict() for row in read.collect()] == [
        {
            "item_id": "i",
            "title": "A title",
            "description": None,
            "categories": None,
            "available": None,
            "updated_at": None,
        }
    ]


def test_a_missing_table_is_named_in_one_line(tables: Tables) -> None:
    assert not tables.exists("items")
    with pytest.raises(TableError, match="items: no Delta table") as error:
        tables.read("items")
    one_line(error)


def test_a_table_of_the_wrong_schema_is_named_in_one_line(spark: SparkSession, tables: Tables) -> None:
    spark.createDataFrame([(1, "i", NOW)], "user_id long, item_id string, event_time timestamp").write.format(
        "delta"
    ).save(tables.path("interactions"))
    with pytest.raises(TableError, match=r"user_id is bigint.*expected string") as error:
        tables.read("interactions")
    one_line(error)
    spark.createDataFrame([("i",)], "item_id string").write.format("delta").save(tables.path("items"))
    with pytest.raises(TableError, match="no column title") as error:
        tables.read("items")
    one_line(error)


def test_a_folder_without_a_log_is_half_written(spark: SparkSession, tables: Tables) -> None:
    spark.range(3).write.parquet(tables.path("items"))
    for attempt in (
        lambda: tables.read("items"),
        lambda: tables.exists("items"),
        lambda: tables.create("items"),
    ):
        with pytest.raises(TableError, match="half-written") as error:
            attempt()
        one_line(error)


def test_a_data_file_that_is_gone_is_told_by_table_with_what_to_do(
    spark: SparkSession, tmp_path: Path
) -> None:
    tables = Tables(spark, str(tmp_path / "a folder with spaces"))
    tables.merge("interactions", interactions(spark, ("u", "i", NOW, 5.0, None)))
    assert tables.read("interactions").count() == 1
    for file in Path(tables.path("interactions")).glob("*.parquet"):
        file.unlink()
    with pytest.raises((PySparkException, Py4JJavaError)) as raised:
        tables.read("interactions").collect()
    error = as_user_error(raised.value)
    assert isinstance(error, TableError)
    assert str(error).startswith("interactions: a data file of it is missing")
    assert "--refresh" in str(error)
    assert "\n" not in str(error)


def test_a_damaged_log_is_half_written(spark: SparkSession, tables: Tables) -> None:
    tables.merge("interactions", interactions(spark, ("u", "i", NOW, 5.0, None)))
    log = Path(tables.path("interactions")) / "_delta_log"
    (log / f"{0:020d}.json").unlink()
    (log / f".{0:020d}.json.crc").unlink(missing_ok=True)
    (log / f"{0:020d}.crc").unlink(missing_ok=True)
    with pytest.raises(TableError, match="half-written") as error:
        Tables(spark, tables.root).read("interactions")
    one_line(error)


def test_a_table_has_its_name_in_the_catalogue_when_it_is_written_and_takes_nobody_else_s(
    spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"tables\.schema_name: no_such, expected a schema"):
        Tables(spark, str(tmp_path / "ours"), "no_such")
    spark.sql("CREATE SCHEMA lists")
    try:
        ours = Tables(spark, str(tmp_path / "ours"), "lists")
        ours.merge("interactions", interactions(spark, ("u", "i", NOW, 5.0, None)))
        assert spark.table("lists.interactions").count() == 1
        Tables(spark, str(tmp_path / "ours"), "lists").create("interactions")
        with pytest.raises(
            TableError, match=r"lists\.interactions: is the table at .*ours/interactions"
        ) as error:
            Tables(spark, str(tmp_path / "theirs"), "lists").create("interactions")
        one_line(error)
    finally:
        spark.sql("DROP SCHEMA lists CASCADE")
    assert ours.read("interactions").count() == 1, "the files stay"


def test_a_file_is_written_read_replaced_and_deleted(spark: SparkSession, tmp_path: Path) -> None:
    uri = str(tmp_path / "folder" / "note")
    for text in ("kleiner", "größer"):
        filesystem.write_text(spark, text, uri)
        assert filesystem.exists(spark, uri)
        assert filesystem.read_text(spark, uri) == text
    assert not filesystem.exists(spark, uri + "x")
    assert filesystem.list_names(spark, str(tmp_path / "folder")) == ["note"]
    filesystem.delete(spark, uri)
    assert not filesystem.exists(spark, uri)


@pytest.fixture
def killed_creation(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log folder of `runs` as a killed writer leaves it, with a commit that never got its name."""
    monkeypatch.setattr("allmrec.tables.creation.SECONDS_TO_CREATE", 2.0)
    log = Path(tables.path("runs")) / "_delta_log"
    (log / "_staged_commits").mkdir(parents=True)
    (log / ".00000000000000000000.json.d8d21ce3-c88a-4f7e-807e-fa7d96e46659.tmp").touch()
    return log


def test_a_table_whose_creation_was_killed_is_created(tables: Tables, killed_creation: Path) -> None:
    assert not tables.exists("runs")
    tables.create("runs")
    assert tables.version("runs") == 0
    assert not list(killed_creation.glob("*.tmp"))


def test_a_table_that_another_run_is_just_creating_is_left_to_it(
    spark: SparkSession, tables: Tables, tmp_path: Path, killed_creation: Path
) -> None:
    other = Tables(spark, str(tmp_path / "other"))
    other.create("runs")
    commit = Path(other.path("runs")) / "_delta_log" / f"{0:020d}.json"
    timer = threading.Timer(0.5, shutil.copy, (commit, killed_creation / commit.name))
    timer.start()
    tables.create("runs")
    timer.join()
    assert (killed_creation / commit.name).read_bytes() == commit.read_bytes()
    assert tables.version("runs") == 0


def test_a_stored_table_without_a_field_of_its_slots_is_read_and_gets_it_when_it_is_written(
    spark: SparkSession, tables: Tables
) -> None:
    name = "email_recommendations"
    old = "array<struct<rank:int,item_id:string,title:string,score:double,probability:double,source:string>>"
    slots = [(1, "i", "a tent", 0.5, None, "cf"), (2, "j", "a lamp", 0.25, 0.1, "cf")]
    rows = spark.createDataFrame([(DAY, "u", slots)], f"run_date date, user_id string, slots {old}")
    rows.write.format("delta").partitionBy("run_date").save(tables.path(name))
    before = tables.written(name, DAY)
    no_reason = dict.fromkeys(("because_item_id", "because_title", "reason", "rule"))
    [row] = tables.read(name).collect()
    assert [slot.asDict() for slot in row["slots"]] == [
        {"rank": 1, "item_id": "i", "title": "a tent", "score": 0.5, "probability": None}
        | {"source": "cf", "item": None, **no_reason},
        {"rank": 2, "item_id": "j", "title": "a lamp", "score": 0.25, "probability": 0.1}
        | {"source": "cf", "item": None, **no_reason},
    ]
    priced = [(*slot, [("price", "5.0")], "k", "a pan", "similar to", None) for slot in slots]
    new = spark.createDataFrame([(NEXT_DAY, "u", priced, None)], TABLES[name].schema)
    tables.replace_date(name, new, NEXT_DAY, next(ORDERS))
    assert tables.read_as_it_is(name).schema["slots"].dataType == TABLES[name].schema["slots"].dataType
    assert tables.written(name, DAY)[1:] == before[1:] == tables.written(name, DAY, 0)[1:]
    [row] = tables.read_date(name, NEXT_DAY).collect()
    assert row["slots"][1]["item"][0].asDict() == {"name": "price", "value": "5.0"}
    assert row["slots"][1]["because_title"] == "a pan"

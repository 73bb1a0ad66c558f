"""Tables of a shop are read where they lie: their columns and types become ours, or one line says why not."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from allmrec.config import SourceConfig, load
from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.importers import IMPORTERS
from allmrec.data.in_place import read_in_place
from allmrec.errors import ConfigError, TableError, UserError
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.spark import filesystem
from allmrec.spark.troubles import as_user_error
from allmrec.steps.importing import run_import
from allmrec.tables.delta import Tables
from allmrec.tables.sources import Source

UTC = dt.timezone.utc
AT = dt.datetime(2026, 5, 1, 10, 30)
SECONDS = 1_777_631_400
"""`AT` as Unix time."""
DAY, DAY_SECONDS = dt.date(2026, 5, 2), 1_777_680_000
MAPPED = {"user_id": "customer", "item_id": "sku", "event_time": "at"}


def lying(tables: Tables, name: str, frame: DataFrame, **settings: Any) -> Source:
    """Give the frame a name in the catalogue and return the source that reads it."""
    frame.createOrReplaceTempView(f"their_{name}")
    return Source(tables, name, SourceConfig(table=f"their_{name}", **settings))


def written(tables: Tables, source: Source, kind: str) -> Source:
    """Write what a source reads to a path, in a format, and return the source that reads it there."""
    path = str(Path(tables.root).parent / source.place)
    source.read(None).coalesce(1).write.format(kind).save(path)
    settings = source.settings.model_copy(update={"table": None, "path": path, "format": kind})
    return Source(tables, source.name, settings)


def log_of(tables: Tables, spark: SparkSession, kind: str, *times: str, **settings: Any) -> Source:
    """A log whose users are numbered from 1, with these times in SQL, of the type `kind`."""
    rows = " UNION ALL ".join(
        f"SELECT {number}L AS customer, CAST(7 AS SMALLINT) AS sku, CAST({time} AS {kind}) AS at"
        for number, time in enumerate(times, 1)
    )
    return lying(tables, "interactions", spark.sql(rows), columns=MAPPED, **settings)


def refused(source: Source, error: type[UserError] = TableError) -> str:
    """Return the line with which reading the source ends."""
    with pytest.raises(error) as found:
        read_in_place(source, source.version())
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("kind", "time"),
    [
        ("timestamp", "'2026-05-01 10:30:00'"),
        ("timestamp_ntz", "'2026-05-01 10:30:00'"),
        ("string", "'2026-05-01 12:30:00+02:00'"),
        ("bigint", str(SECONDS)),
        ("bigint", str(SECONDS * 1000)),
        ("double", f"{SECONDS}.0"),
        ("decimal(20,3)", f"{SECONDS}.000"),
        ("int", str(SECONDS)),
    ],
)
def test_a_time_of_any_safe_type_is_the_same_moment_in_utc(
    tables: Tables, spark: SparkSession, kind: str, time: str
) -> None:
    [row] = read_in_place(log_of(tables, spark, kind, time), None).collect()
    assert (row.user_id, row.item_id, row.event_time) == ("1", "7", AT)
    assert (row.rating, row.event_type) == (None, None)


def test_a_date_is_its_midnight_in_utc(tables: Tables, spark: SparkSession) -> None:
    [row] = read_in_place(log_of(tables, spark, "date", "'2026-05-01'"), None).collect()
    assert row.event_time == dt.datetime(2026, 5, 1)


@pytest.mark.parametrize(
    ("kind", "before", "after", "pushed"),
    [
        ("timestamp", "'2026-05-01 23:59:59'", "'2026-05-02 00:00:00'", "LessThan(at,2026-05-02 00:00:00.0)"),
        ("timestamp_ntz", "'2026-05-01 23:59:59'", "'2026-05-02 00:00:00'", "LessThan(at,2026-05-02T00:00)"),
        ("date", "'2026-05-01'", "'2026-05-02'", "LessThan(at,2026-05-02)"),
        ("bigint", str(DAY_SECONDS - 1), str(DAY_SECONDS), f"LessThan(at,{DAY_SECONDS})"),
        ("bigint", f"{DAY_SECONDS - 1}999", f"{DAY_SECONDS}000", f"LessThan(at,{DAY_SECONDS}000)"),
    ],
)
def test_the_cut_off_reaches_the_files_and_rows_without_a_time_are_still_seen(
    tables: Tables, spark: SparkSession, kind: str, before: str, after: str, pushed: str
) -> None:
    source = written(tables, log_of(tables, spark, kind, before, after, "NULL"), "parquet")
    tonight = "coalesce(event_time < timestamp'2026-05-02', true)"
    spark.conf.set("spark.sql.maxMetadataStringLength", 1000)
    rows = read_in_place(source, None, DAY).where(tonight).select("user_id", "event_time")
    assert sorted(row.user_id for row in rows.collect()) == ["1", "3"]
    plan = rows._jdf.queryExecution().executedPlan().toString()
    spark.conf.unset("spark.sql.maxMetadataStringLength")
    assert pushed in plan.partition("PushedFilters: ")[2]
    assert "sku" not in plan.partition("ReadSchema: ")[2], "columns that nobody asks for are not read"


def test_a_value_that_cannot_be_read_is_a_rejected_row_as_it_lies_there(
    tables: Tables, spark: SparkSession
) -> None:
    frame = spark.sql(
        f"SELECT 12.0BD AS customer, 'a' AS sku, '{SECONDS}' AS at, '5' AS stars UNION ALL "
        f"SELECT 12.5BD, 'a', '{SECONDS}', '5' UNION ALL SELECT 13.0BD, 'a', 'yesterday', '5' UNION ALL "
        f"SELECT 14.0BD, 'a', '{SECONDS * 10}', '5' UNION ALL SELECT 15.0BD, 'a', '{SECONDS}', 'five'"
    )
    source = lying(tables, "interactions", frame, columns={**MAPPED, "rating": "stars"})
    rows = {
        json.loads(row.raw)["customer"] if row.raw else row.user_id: row
        for row in events.tagged(read_in_place(source, None), None).collect()
    }
    assert (rows["12"].user_id, rows["12"].rating, rows["12"].reason) == ("12", 5.0, None)
    assert {name: row.reason for name, row in rows.items() if row.reason} == {
        12.5: "unparsable_user_id",
        13.0: "unparsable_time",
        14.0: "unparsable_time",
        15.0: "unparsable_rating",
    }
    assert json.loads(rows[13.0].raw) == {"customer": 13.0, "sku": "a", "at": "yesterday", "stars": "5"}


def test_a_catalogue_of_other_types_is_one_of_ours(tables: Tables, spark: SparkSession) -> None:
    frame = spark.sql(
        "SELECT 7 AS id, 'A pan' AS name, 'Kitchen' AS shelf, 0 AS buyable, date'2026-05-01' AS d"
    )
    mapped = {
        "item_id": "id",
        "title": "name",
        "categories": "shelf",
        "available": "buyable",
        "updated_at": "d",
    }
    source = lying(tables, "items", frame, columns=mapped)
    [row] = catalogue.tagged_items(read_in_place(source, None)).collect()
    assert (row.item_id, row.title, row.categories, row.available) == ("7", "A pan", ["Kitchen"], False)
    assert (row.updated_at, row.description, row.reason) == (dt.datetime(2026, 5, 1), None, None)


def test_a_condition_keeps_the_rows_that_meet_it_also_on_columns_that_are_not_read(
    tables: Tables, spark: SparkSession
) -> None:
    source = log_of(tables, spark, "bigint", "1", "2", "3", where="customer <> 2 AND sku = 7")
    assert [row.user_id for row in read_in_place(source, None).collect()] == ["1", "3"]


def test_our_own_table_needs_no_settings_and_keeps_its_exact_rows(
    tables: Tables, spark: SparkSession
) -> None:
    source = Source(tables, "interactions", SourceConfig())
    assert not source.exists()
    tables.append("interactions", {"user_id": "u", "item_id": "i", "event_time": AT})
    assert source.exists()
    frame = read_in_place(source, source.version())
    assert frame.columns == ["user_id", "item_id", "event_time", "rating", "event_type"]
    assert [row.event_time for row in frame.collect()] == [AT]


def test_a_delta_table_at_a_path_is_read_at_its_version_and_at_that_of_a_moment(
    tables: Tables, spark: SparkSession
) -> None:
    frame = spark.sql("SELECT 7 AS item_id, 'A pan' AS title")
    source = written(tables, lying(tables, "items", frame), "delta")
    assert source.version() == 0
    after_first = dt.datetime.now(UTC)
    spark.sql("SELECT 8 AS item_id, 'A pot' AS title").write.format("delta").mode("append").save(source.place)
    assert source.version() == 1
    assert read_in_place(source, 0).count() == 1
    assert read_in_place(source, 1).count() == 2
    assert source.version_at(after_first) == 0
    assert source.version_at(after_first - dt.timedelta(days=1)) is None


def test_a_missing_table_is_named_with_the_setting_to_check(tables: Tables, spark: SparkSession) -> None:
    nowhere = SourceConfig(path=f"{tables.root}/nowhere")
    assert refused(Source(tables, "items", nowhere)) == (
        f"items: no Delta table at {tables.root}/nowhere, expected one; check tables.items.path and .format"
    )
    nowhere = SourceConfig(path=f"{tables.root}/nowhere", format="parquet")
    assert f"items: {tables.root}/nowhere cannot be read: [PATH_NOT_FOUND]" in refused(
        Source(tables, "items", nowhere)
    )
    line = refused(Source(tables, "items", SourceConfig(path=tables.root, format="lance")))
    assert line.startswith("items: this Spark cannot read its format: ")
    filesystem.write_text(spark, '{"item_id": 1}', f"{tables.root}/file")
    line = refused(Source(tables, "items", SourceConfig(path=f"{tables.root}/file", format="parquet")))
    assert line.startswith("items: its files have another format: ")
    line = refused(Source(tables, "items", SourceConfig(table="sales.products")))
    assert line.startswith("items: sales.products cannot be read: [TABLE_OR_VIEW_NOT_FOUND]")
    assert line.endswith("expected a table, check tables.items")
    line = refused(Source(tables, "items", SourceConfig(table="no such name")))
    assert line.startswith("items: no such name cannot be read: [PARSE_SYNTAX_ERROR]")


def test_a_missing_column_is_named_beside_those_that_are_there(tables: Tables, spark: SparkSession) -> None:
    source = log_of(tables, spark, "bigint", "1")
    wrong = Source(
        tables, "interactions", source.settings.model_copy(update={"columns": {"user_id": "customer"}})
    )
    assert refused(wrong) == (
        f"interactions: no column item_id in {source.place}, which has customer, sku, at; "
        "name the one for item_id by tables.interactions.columns.item_id"
    )
    columns = {**MAPPED, "rating": "stars"}
    wrong = Source(tables, "interactions", source.settings.model_copy(update={"columns": columns}))
    assert "no column stars" in refused(wrong)
    columns = {**MAPPED, "ratting": "stars"}
    wrong = Source(tables, "interactions", source.settings.model_copy(update={"columns": columns}))
    assert refused(wrong, ConfigError) == (
        "tables.interactions.columns: ratting, "
        "expected some of user_id, item_id, event_time, rating, event_type"
    )


def test_an_import_into_a_table_that_nights_read_elsewhere_is_refused(
    tables: Tables, spark: SparkSession
) -> None:
    config = load([], [f"tables.root={tables.root}", "tables.items.table=sales.products"])
    context = Context.open(spark, config, Report())
    with pytest.raises(ConfigError, match=r"tables\.items: sales\.products is read in place"):
        run_import(context, IMPORTERS["amazon"], {"metadata": "meta.json"})
    assert not tables.exists("rejected_rows")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "map('a', 1) AS user_id, 'i' AS item_id, 1L AS event_time",
            "user_id of PATH is map<string,int>, expected",
        ),
        ("'u' AS user_id, true AS item_id, 1L AS event_time", "expected for item_id a string, an integer, a"),
        (
            "'u' AS user_id, 'i' AS item_id, true AS event_time",
            "is boolean, expected for event_time a timestamp",
        ),
        (
            "'u' AS user_id, 'i' AS item_id, 1L AS event_time, array(1) AS rating",
            "rating of PATH is array<int>",
        ),
    ],
)
def test_a_type_that_is_not_safe_to_cast_is_named(
    tables: Tables, spark: SparkSession, columns: str, message: str
) -> None:
    source = lying(tables, "interactions", spark.sql(f"SELECT {columns}"))
    line = refused(source)
    assert line.startswith("interactions: column ")
    assert message.replace("PATH", source.place) in line


def test_a_condition_that_fails_on_a_row_is_no_passing_trouble(tables: Tables, spark: SparkSession) -> None:
    source = log_of(tables, spark, "string", "'yesterday'", where="CAST(at AS INT) > 3")
    with pytest.raises(PySparkException) as found:
        read_in_place(source, None).collect()
    error = as_user_error(found.value)
    assert isinstance(error, TableError)
    assert str(error).startswith(
        "a condition (tables.….where) or a view casts what it must try_cast: [CAST_INV"
    )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("state = 'paid'", "with name `state` cannot be resolved"),
        ("sku ==== 7", "Syntax error at or near"),
        ("sku + 1", 'Filter expression "(sku + 1)" of type "INT" is not a boolean'),
    ],
)
def test_a_condition_that_cannot_be_read_is_quoted_beside_the_columns(
    tables: Tables, spark: SparkSession, where: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = log_of(tables, spark, "bigint", "1", where=where)
    line = refused(source, ConfigError)
    assert line.startswith(f"tables.interactions.where: {where}: [")
    assert message in line
    assert line.endswith(f"expected a condition on columns of {source.place}: customer, sku, at")
    assert capfd.readouterr().err == ""

"""What a mailing tool gets: columns of items in slots, a file of a published night, readable tables."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from allmrec.errors import ConfigError, InputError
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.steps.export import Export, run_export
from allmrec.steps.nightly import run_nightly
from allmrec.steps.publish import run_publish
from allmrec.tables.local_file import FORMS
from allmrec.tables.schemas import TABLES
from tests.documents import ROOT, Document
from tests.steps.conftest import RUN_DATE, NewContext, asked, copied_shop
from tests.steps.reading import version

NEXT = RUN_DATE + timedelta(days=1)
QUERY, PYTHON = Document(ROOT / "jobs" / "README.md").blocks("text")[:2]
"""The queries of the document for mailing tools: in SQL, and in Python without Spark."""


def test_every_table_of_ours_is_read_without_spark(copy_of_shop: Path, new_context: NewContext) -> None:
    tables = new_context(copy_of_shop).tables
    for name in TABLES:
        tables.create(name)
        frame = DeltaTable(str(copy_of_shop / name)).to_pandas()
        assert list(frame.columns) == tables.read_as_it_is(name).columns
        assert len(frame) == tables.read_as_it_is(name).count()


def test_the_documents_queries_give_the_newest_complete_emails(
    copy_of_shop: Path, spark: SparkSession
) -> None:
    """Rows of a night that was killed before its end are not read."""
    name = f"delta.`{copy_of_shop / 'email_recommendations'}`"
    spark.sql(f"INSERT INTO {name} SELECT DATE'{NEXT}', user_id, slots, arm FROM {name} LIMIT 3")
    users = {
        row[0] for row in spark.sql(QUERY.replace("tables/", f"{copy_of_shop}/")).select("user_id").collect()
    }
    found: dict[str, Any] = {}
    exec(PYTHON.replace("tables/", f"{copy_of_shop}/"), found)
    assert found["night"] == RUN_DATE
    assert set(found["emails"]["user_id"]) == users
    published = found["runs"].query("step == 'publish' and status == 'done'")
    assert dict(published["counts"].iloc[0])["email_users"] == len(found["emails"]) == len(users)


@pytest.fixture(scope="module")
def priced(
    shop: Path, new_context: NewContext, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    """A copy of the shop, published with prices of items and with a view; the next night failed."""
    root = copied_shop(shop, tmp_path_factory.mktemp("priced"))
    context = new_context(root)
    items = f"delta.`{root / 'items'}`"
    context.spark.sql(f"ALTER TABLE {items} ADD COLUMNS (price DOUBLE, tags ARRAY<STRING>, score STRING)")
    context.spark.sql(
        f"UPDATE {items} SET price = length(title) / 4 - 5, tags = array('a', 'b'), "
        "score = IF(item_id LIKE '%1', NULL, '=1+1')"
    )
    context.spark.sql("CREATE SCHEMA mails")
    names = "publish.item_columns=[price, tags, score]"
    context = new_context(root, names, "tables.schema_name=mails")
    run_publish(Night(context, RUN_DATE).with_new_run())
    failed = {"run_id": "r", "step": "score", "status": "failed", "started_at": datetime(2026, 6, 2, 3)}
    context.tables.append("runs", failed | {"run_date": NEXT, "run_order": 1})
    yield context
    context.spark.sql("DROP SCHEMA mails CASCADE")


def exported(context: Context, path: Path, form: str, per: str, run_date: date | None = None) -> list[str]:
    return run_export(asked(context), run_date, Export("email", form, per, path))


def stored(context: Context) -> dict[str, list[dict[str, Any]]]:
    """The published slots of every user, as Spark reads them."""
    rows = context.tables.read_date("email_recommendations", RUN_DATE).orderBy("user_id").collect()
    return {row["user_id"]: [slot.asDict(recursive=True) for slot in row["slots"]] for row in rows}


def test_slots_repeat_columns_of_items_as_texts(priced: Context) -> None:
    of_item = {
        row["item_id"]: [("price", row["price"]), ("tags", '["a","b"]'), ("score", row["score"])]
        for row in priced.tables.read_as_it_is("items")
        .selectExpr("item_id", "string(price)", "score")
        .collect()
    }
    slots = [slot for own in stored(priced).values() for slot in own]
    assert len(slots) > 500
    for slot in slots:
        assert [(one["name"], one["value"]) for one in slot["item"]] == of_item[slot["item_id"]]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_has_a_row_a_slot_with_the_stored_values(priced: Context, form: str, tmp_path: Path) -> None:
    path = tmp_path / "emails"
    first, second = exported(priced, path, form, "slot")
    slots = [(user, place, slot) for user, own in stored(priced).items() for place, slot in enumerate(own, 1)]
    assert f"of {RUN_DATE}: {len(stored(priced)):,} users, {len(slots):,} rows" in first
    assert second.startswith(f"the newest run date, {NEXT}, is not published (failed score)")
    if form == "csv":
        frame = pd.read_csv(path, dtype={"user_id": str, "item_score": str}, float_precision="round_trip")
    elif form == "jsonl":
        frame = pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    else:
        frame = pq.read_table(path).to_pandas()
    own = ["rank", "item_id", "title", "score", "probability", "source"]
    own += ["because_item_id", "because_title", "reason", "rule"]
    assert list(frame.columns) == ["run_date", "user_id", "arm", "slot", *own, "price", "tags", "item_score"]
    assert list(frame["slot"]) == [place for _, place, _ in slots]
    assert list(frame["item_id"]) == [slot["item_id"] for *_, slot in slots]
    assert list(frame["score"]) == [slot["score"] for *_, slot in slots]
    assert [str(day) for day in frame["run_date"]] == [str(RUN_DATE)] * len(slots)
    assert [float(price) for price in frame["price"]] == [
        float(slot["item"][0]["value"]) for *_, slot in slots
    ]
    expected = "'=1+1" if form == "csv" else "=1+1"
    assert set(frame["item_score"].dropna()) == {expected}
    assert sum(frame["item_score"].isna()) == sum(slot["item"][2]["value"] is None for *_, slot in slots)
    if form != "csv":
        assert list(frame["user_id"]) == [user for user, *_ in slots]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_has_a_row_a_user_with_all_slots(priced: Context, form: str, tmp_path: Path) -> None:
    path = tmp_path / "emails"
    exported(priced, path, form, "user", RUN_DATE)
    expected = [[slot["item_id"] for slot in own] for own in stored(priced).values()]
    if form == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        places = range(1, 1 + max(map(len, expected)))
        assert [[row[f"item_id_{n}"] for n in places if row[f"item_id_{n}"]] for row in rows] == expected
        assert "price_1" in rows[0]
        assert "slot_1" not in rows[0]
        return
    if form == "jsonl":
        users = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        users = pq.read_table(path).to_pylist()
    assert [[slot["item_id"] for slot in user["slots"]] for user in users] == expected
    assert users[0]["slots"][0]["slot"] == 1
    assert float(users[0]["slots"][0]["price"]) < 50


def test_feeds_are_exported_alike(priced: Context, tmp_path: Path) -> None:
    run_export(asked(priced), RUN_DATE, Export("feed", "csv", "slot", tmp_path / "feeds.csv"))
    feeds = priced.tables.read_date("feed_recommendations", RUN_DATE)
    num_slots = feeds.selectExpr("sum(size(slots))").collect()[0][0]
    assert len(pd.read_csv(tmp_path / "feeds.csv")) == num_slots


def test_a_date_that_is_not_published_is_refused_in_one_line(priced: Context, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"publish of {NEXT}: not run, expected done") as error:
        exported(priced, tmp_path / "emails.csv", "csv", "slot", NEXT)
    assert error.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_the_view_has_the_newest_published_emails(priced: Context) -> None:
    rows = priced.spark.table("mails.latest_email_recommendations")
    assert {row["run_date"] for row in rows.collect()} == {RUN_DATE}
    assert rows.count() == len(stored(priced))
    price = "SELECT map_from_entries(item)['price'] FROM (SELECT inline(slots) FROM {})"
    prices = priced.spark.sql(price.format("mails.latest_email_recommendations")).collect()
    assert all(re.fullmatch(r"-?\d+\.\d+", row[0]) for row in prices)


def test_a_view_that_the_catalogue_refuses_is_a_warning_and_the_night_is_published(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    spark.sql("CREATE SCHEMA taken")
    try:
        place = copy_of_shop.parent / "theirs"
        spark.sql(f"CREATE TABLE taken.latest_email_recommendations (a INT) USING delta LOCATION '{place}'")
        context = new_context(copy_of_shop, "tables.schema_name=taken")
        run_publish(Night(context, RUN_DATE).with_new_run())
        [line] = [line for line in context.said if line.startswith("taken.latest_email_recommendations: ")]
        assert "\n" not in line
    finally:
        spark.sql("DROP SCHEMA taken CASCADE")


def test_a_column_that_items_lack_is_refused_before_anything_is_written(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    context = new_context(copy_of_shop, "publish.item_columns=[description, price]")
    before = {name: version(copy_of_shop, name) for name in ("runs", "email_recommendations")}
    for night in (NEXT, RUN_DATE):
        with pytest.raises(ConfigError) as error:
            run_nightly(context, night)
        line = str(error.value)
        assert line.startswith("publish.item_columns: price, expected columns of ")
        assert "which has item_id, title, description" in line
    assert before == {name: version(copy_of_shop, name) for name in before}

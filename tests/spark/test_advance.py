"""A night that reads only what is new writes the rows that one writes which reads the whole log."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from allmrec.config import load
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.night import Night
from allmrec.steps.sequences import run_sequences

FIRST, SECOND = dt.date(2026, 5, 10), dt.date(2026, 5, 12)
LOG = "user_id string, item_id string, event_time timestamp, rating double, event_type string"
ITEMS = "item_id string, title string"
USERS = "user_id string"

Row = tuple[Any, ...]


def at(day: int, hour: int = 12) -> dt.datetime:
    return dt.datetime(2026, 5, day, hour)


def event(
    user: str | None,
    item: str | None,
    when: dt.datetime | None,
    rating: float | None = None,
    event_type: str = "buy",
) -> Row:
    return user, item, when, rating, event_type


class Shop:
    """Tables below a folder, and the nights on them."""

    def __init__(self, spark: SparkSession, root: Path, *settings: str) -> None:
        self.spark, self.root, self.said = spark, root, list[str]()
        self.config = load([], [f"tables.root={root}", "sequences.max_history=4", *settings])

    def write(self, table: str, rows: Iterable[Row], schema: str, mode: str = "append") -> None:
        frame = self.spark.createDataFrame(list(rows), schema).coalesce(1)
        frame.write.format("delta").mode(mode).save(f"{self.root}/{table}")

    def sell(self, *rows: Row) -> None:
        self.write("interactions", rows, LOG)

    def list_items(self, *items: str) -> None:
        self.write("items", [(item, f"Title of {item}") for item in items], ITEMS, "overwrite")

    def sql(self, statement: str) -> None:
        self.spark.sql(statement.format(log=f"delta.`{self.root}/interactions`"))

    def night(self, run_date: dt.date, **options: Any) -> Context:
        """Run the step and return the context of the run."""
        report = Report(self.said.append)
        with Context.open(self.spark, self.config, report, RunOptions(**options)) as context:
            run_sequences(Night(context, run_date))
        return context

    def rows(self, run_date: dt.date) -> dict[str, Any]:
        frame = self.spark.read.format("delta").load(f"{self.root}/user_sequences")
        return {row.user_id: row for row in frame.where(f"run_date = DATE'{run_date}'").collect()}

    def rejected(self) -> set[tuple[str, str]]:
        frame = self.spark.read.format("delta").load(f"{self.root}/rejected_rows")
        return {(row.row_hash, row.reason) for row in frame.collect()}

    def advanced(self, run_date: dt.date = SECOND) -> dict[str, int]:
        """Run a night that reads what is new, see that the whole log gives the same, return its counts."""
        context = self.night(run_date)
        assert any("reads what is new since" in line for line in self.said), self.said
        found, rejected = self.rows(run_date), self.rejected()
        counts = dict(Night(context, run_date).done("sequences").row.counts)
        self.night(run_date, force=True, refresh=True)
        assert found == self.rows(run_date)
        assert rejected == self.rejected()
        return counts

    def whole(self, run_date: dt.date = SECOND) -> str:
        """Run a night that reads the whole log, and return the reason that it gives."""
        self.said.clear()
        self.night(run_date)
        (line,) = [line for line in self.said if "reads the whole log" in line]
        return line


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path) -> Shop:
    """A shop after its first night."""
    return opened(Shop(spark, tmp_path))


def opened(shop: Shop, properties: str = "") -> Shop:
    shop.list_items("a", "b", "c", "d", "e", "f")
    shop.sell(
        *(event("long", item, at(day)) for day, item in enumerate("abcdef", 1)),
        *(event("long", item, at(day, 13)) for day, item in enumerate("aabbcc", 1)),
        event("few", "a", at(3)),
        event("few", "later", at(4)),
        event("bad", "gone", at(2)),
        event("", "a", at(2)),
        event("untimed", "a", None),
    )
    # After the first cut-off, and in the log before the first night.
    shop.sell(event("early", "b", at(10, 1)))
    shop.write("users", [("named",), ("few",)], USERS)
    if properties:
        shop.sql(f"ALTER TABLE {{log}} SET TBLPROPERTIES ({properties})")
    shop.night(FIRST)
    return shop


def test_new_late_repeated_and_bad_events_are_merged_into_the_sequences_of_before(shop: Shop) -> None:
    shop.sell(
        event("few", "b", at(11)),
        event("few", "b", at(11)),
        event("newcomer", "c", at(10, 0)),
        event("newcomer", "unknown", at(11, 1)),
        event("bad", "a", at(11)),
        event("tomorrow", "a", at(12, 0)),
        event("untimed", "b", None),
    )
    # Late: new to the log, of before the first cut-off; one of them was there already.
    shop.sell(
        event("long", "e", at(6, 14)),
        event("long", "f", at(6)),
        event("late", "d", at(1)),
        event(None, "a", at(1)),
    )
    counts = shop.advanced()
    rows = shop.rows(SECOND)
    assert set(rows) == {"long", "few", "early", "newcomer", "bad", "late", "named"}
    assert (rows["few"].item_ids, rows["few"].seen_item_ids) == (["a", "b"], ["a", "b", "later"])
    assert (rows["long"].item_ids[-1], rows["long"].num_interactions) == ("e", 13)
    assert (rows["bad"].item_ids, rows["bad"].seen_item_ids) == (["a"], ["a", "gone"])
    assert rows["early"].item_ids == ["b"]
    assert counts["rebuilt_users"] < len(rows)


@pytest.mark.parametrize(
    ("repeats", "feed"), [("fold", True), pytest.param("keep", False, marks=pytest.mark.long)]
)
def test_whatever_is_appended_night_after_night_the_rows_are_those_of_the_whole_log(
    spark: SparkSession, tmp_path: Path, repeats: str, feed: bool
) -> None:
    shop = Shop(spark, tmp_path, f"sequences.repeats={repeats}", "sequences.min_rating=2")
    opened(shop, "delta.enableChangeDataFeed = true" if feed else "")
    draw = random.Random(f"{repeats} {feed}")
    users = ["long", "few", "bad", "u1", "u2", "u3", None]
    for night in range(2):
        shop.sell(
            *(
                event(
                    draw.choice(users),
                    draw.choice("abcdefxy"),
                    at(draw.choice([1, 5, 9, 10, 11, 12, 13, 14]), draw.randrange(3)),
                    draw.choice([None, 1.0, 4.0]),
                    draw.choice(["buy", "view"]),
                )
                for _ in range(40)
            )
        )
        shop.list_items(*draw.sample("abcdefxy", 6))
        shop.write(
            "users", [(user,) for user in draw.sample(["named", "few", "u1", "u9"], 2)], USERS, "overwrite"
        )
        if feed:
            shop.sql("DELETE FROM {log} WHERE item_id = '" + draw.choice("abcd") + "'")
            shop.sql("UPDATE {log} SET item_id = 'e' WHERE user_id = 'u1'")
        else:
            shop.sql("OPTIMIZE {log}")
        shop.advanced(SECOND + dt.timedelta(days=night))


def test_an_item_that_comes_or_goes_is_counted_in_events_of_before(shop: Shop) -> None:
    shop.list_items("a", "b", "c", "d", "later", "gone")
    counts = shop.advanced()
    rows = shop.rows(SECOND)
    assert rows["few"].item_ids == ["a", "later"]
    assert rows["bad"].item_ids == ["gone"]
    assert not {"e", "f"} & set(rows["long"].item_ids)
    assert counts["rebuilt_users"] >= 3


def test_files_of_days_before_are_not_read(shop: Shop) -> None:
    largest = max((shop.root / "interactions").glob("*.parquet"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"nobody reads this")
    largest.with_name(f".{largest.name}.crc").unlink(missing_ok=True)
    shop.sell(event("few", "b", at(11)))
    shop.night(SECOND)
    rows = shop.rows(SECOND)
    assert (rows["few"].item_ids, rows["early"].item_ids) == (["a", "b"], ["b"])


def test_where_rows_were_deleted_and_there_is_no_change_data_feed_the_whole_log_is_read(shop: Shop) -> None:
    shop.sql("DELETE FROM {log} WHERE user_id = 'few'")
    assert "were changed or deleted since, and its change data feed is off" in shop.whole()
    assert shop.rows(SECOND)["few"].seen_item_ids == []


def test_where_what_was_added_was_vacuumed_the_whole_log_is_read(shop: Shop) -> None:
    shop.sell(event("few", "b", at(11)))
    shop.sql("OPTIMIZE {log}")
    shop.spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        shop.sql("VACUUM {log} RETAIN 0 HOURS")
    finally:
        shop.spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    assert "cannot be read" in shop.whole()
    assert shop.rows(SECOND)["few"].item_ids == ["a", "b"]


def test_after_a_change_of_settings_the_whole_log_is_read_and_by_a_forced_night(shop: Shop) -> None:
    assert any("reads the whole log: there is no earlier night" in line for line in shop.said)
    shop.config = load([], [f"tables.root={shop.root}", "sequences.max_history=5"])
    assert "other settings" in shop.whole()
    shop.night(SECOND, force=True)
    assert any("--force is given" in line for line in shop.said)


def test_a_condition_that_depends_on_the_time_makes_every_night_read_the_whole_log(
    spark: SparkSession, tmp_path: Path
) -> None:
    root = tmp_path / "interactions"
    shop = Shop(spark, tmp_path, f"tables.interactions={{path: {root}, where: event_time < now()}}")
    opened(shop)
    shop.sell(event("few", "b", at(11)))
    assert "changes with the time" in shop.whole()

"""E-mails and feeds of real tables: variety, caps, rotation over nights, reruns and backfills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from allmrec.bundle import save_bundle
from allmrec.config import load
from allmrec.errors import ConfigError, GateError
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Night
from allmrec.steps.forget import run_forget
from allmrec.steps.publish import run_publish
from allmrec.tables.schemas import TABLES
from tests.unit.tiny_bundle import tiny_bundle

DAY = date(2026, 6, 1)
NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
WORDS = (
    *("anchor", "basket", "candle", "drawer", "easel", "funnel", "garland", "hammock", "inkwell", "jigsaw"),
    *("kettle", "lantern", "mirror", "napkin", "oven glove", "pillow", "quilt", "ribbon", "saddle", "teapot"),
    *(
        "umbrella",
        "violin",
        "whistle",
        "xylophone",
        "yoghurt maker",
        "zither",
        "bench",
        "clock",
        "dice",
        "fan",
    ),
)
"""Titles that are unlike each other, by number of the item."""
ITEMS = "item_id string, title string, categories array<string>, available boolean, made_by string"
Lists = dict[str, list[int]]
Histories = Mapping[str, Sequence[tuple[int, float]]]


def item(number: int) -> str:
    return f"i{number:03d}"


class Shop:
    """Tables with a catalogue that is read in place and scored nights."""

    def __init__(self, spark: SparkSession, folder: Path, bundle_id: str) -> None:
        self.spark = spark
        self.folder = folder
        self.bundle_id = bundle_id
        self.runs = ExitStack()
        self.context().tables.append(
            "interactions", {"user_id": "u", "item_id": item(1), "event_time": NOW.isoformat()}
        )

    def context(self, *overrides: str, **options: Any) -> Context:
        settings = [
            f"tables.root={self.folder / 'tables'}",
            f"tables.items.path={self.folder / 'products'}",
            f"cache.folder={self.folder / 'cache'}",
        ]
        config = load([], [*settings, *overrides])
        return self.runs.enter_context(Context.open(self.spark, config, Report(), RunOptions(**options)))

    def offer(self, **other: dict[int, Any]) -> None:
        """Write the catalogue: `other` has titles, categories and brands by number of the item."""
        rows = [
            (
                item(number),
                other.get("titles", {}).get(number, word),
                ["Home", other.get("categories", {}).get(number, word)],
                other.get("available", {}).get(number, True),
                other.get("brands", {}).get(number),
            )
            for number, word in enumerate(WORDS, start=1)
        ]
        frame = self.spark.createDataFrame(rows, ITEMS)
        frame.write.format("delta").mode("overwrite").save(str(self.folder / "products"))

    def remember(self, day: date, histories: Histories) -> None:
        """Record sequences: the numbers of bought items with days before `day`, oldest first."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
        rows: list[tuple[Any, ...]] = [
            (
                user,
                [item(number) for number, _ in bought],
                [midnight - timedelta(days=days) for _, days in bought],
                len(bought),
                None,
                [],
            )
            for user, bought in histories.items()
        ]
        names = ("user_id", "item_ids", "event_times", "num_interactions", "last_event_time", "seen_item_ids")
        types = {field.name: field.dataType.simpleString() for field in TABLES["user_sequences"].schema}
        frame = self.spark.createDataFrame(rows, ", ".join(f"{name} {types[name]}" for name in names))
        inputs = Inputs.newest(self.context())
        night = Night(self.context(), day).with_new_run()
        with night.step("sequences", histories=histories).recorded(inputs.versions, inputs.table_ids) as run:
            run.replace("user_sequences", frame)

    def score(self, day: date, lists: Lists, histories: Histories | None = None) -> None:
        """Record a scoring with these lists, item numbers by rank, after the sequences of these histories."""
        self.remember(day, {**dict.fromkeys(lists, ()), **(histories or {})})
        context = self.context()
        rows = [
            (user, rank, item(number), 1.0 / rank, 0.01, "cf", self.bundle_id, "r", NOW)
            for user, numbers in lists.items()
            for rank, number in enumerate(numbers, start=1)
        ]
        names = (
            "user_id",
            "rank",
            "item_id",
            "score",
            "probability",
            "source",
            "bundle_id",
            "run_id",
            "scored_at",
        )
        types = {field.name: field.dataType.simpleString() for field in TABLES["recommendations"].schema}
        frame = self.spark.createDataFrame(rows, ", ".join(f"{name} {types[name]}" for name in names))
        for name in set(types) - {*names, "run_date"}:
            frame = frame.selectExpr("*", f"CAST(NULL AS {types[name]}) AS {name}")
        inputs = Inputs.newest(context)
        night = Night(context, day).with_new_run()
        with night.step("score", lists=lists).recorded(inputs.versions, inputs.table_ids) as run:
            run.replace("recommendations", frame)
            run.figures = {"users": float(len(lists))}
            run.bundle_id = self.bundle_id

    def publish(self, day: date, *overrides: str, **options: Any) -> dict[str, int]:
        """Publish a date and return what `runs` counted."""
        night = Night(self.context(*overrides, **options), day).with_new_run()
        run_publish(night)
        row = night.latest("publish", "done")
        assert row is not None
        return dict(row.counts)

    def shown(self, day: date, table: str = "email_recommendations") -> dict[str, list[int]]:
        """Item numbers by slot of every user."""
        rows = self.context().tables.read_date(table, day).collect()
        return {row["user_id"]: [int(slot["item_id"][1:]) for slot in row["slots"]] for row in rows}

    def bundle_title(self, item_id: str) -> str:
        """The title of an item as the bundle has it."""
        path = self.folder / "tables" / "_bundles" / self.bundle_id / "items.parquet"
        titles: pd.Series = pd.read_parquet(path).set_index("item_id")["title"]
        return str(titles[item_id])

    def version(self) -> int:
        return self.context().tables.version("email_recommendations")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a bundle of the items 1 to 30, and its id."""
    folder = tmp_path_factory.mktemp("bundles")
    origin = {"purpose": "serving", "trained_before": "2026-05-01", "fingerprint": "f"}
    return folder, save_bundle(folder, tiny_bundle(tmp_path_factory.mktemp("parts")), origin)


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path, saved: tuple[Path, str]) -> Iterator[Shop]:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "_bundles").symlink_to(saved[0])
    made = Shop(spark, tmp_path, saved[1])
    made.offer()
    with made.runs:
        yield made


FIRST = list(range(1, 21))
CAP = "publish.max_per.category=2"
PLAIN = ("publish.diversity=0", "publish.duplicate_above=1", "publish.not_again_days=3")


def test_slots_come_from_all_scored_items_within_the_caps_and_what_breaks_one_is_counted(shop: Shop) -> None:
    shop.offer(
        categories={number: "pots" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)},
        brands={number: "Acme" for number in (12, 13, 14)} | {15: " "},
    )
    shop.score(DAY, {"mixed": FIRST, "potter": list(range(1, 12)), "few": [3, 20]})
    caps = "publish.max_per={category: 2, made_by: 1}"
    counts = shop.publish(DAY, *PLAIN, caps)
    assert shop.shown(DAY) == {
        "mixed": [1, 2, 12, 15, 16],
        "potter": [1, 2, 3, 4, 5],
        "few": [3, 20],
    }
    assert shop.shown(DAY, "feed_recommendations")["mixed"] == FIRST[:10]
    assert counts["email_users"] == counts["feed_users"] == 3
    assert counts["emails_over_cap"] == 1
    assert counts["emails_with_near_duplicates"] == counts["email_slots_again"] == 0


def test_every_slot_has_a_reason_about_an_item_that_the_user_had(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST, "v": FIRST}, {"u": [(21, 9), (3, 2.5)]})
    shop.publish(DAY, *PLAIN)
    titles = {"i021": shop.bundle_title("i021"), "i003": shop.bundle_title("i003")}
    for table, num_slots in (("email_recommendations", 5), ("feed_recommendations", 10)):
        rows = shop.context().tables.read_date(table, DAY).collect()
        slots = {row["user_id"]: row["slots"] for row in rows}
        assert len(slots["u"]) == num_slots
        for slot in slots["u"]:
            assert slot["reason"] in ("similar to", "often bought after", "bought before")
            assert slot["because_title"] == titles[slot["because_item_id"]]
            assert (slot["reason"] == "bought before") == (slot["item_id"] == "i003")
        assert {slot["reason"] for slot in slots["v"]} == {"popular"}
        assert {slot["because_item_id"] for slot in slots["v"]} == {None}


def test_a_kind_that_was_bought_lately_comes_after_all_others_until_the_days_have_passed(shop: Shop) -> None:
    kinds = {number: "pots" for number in (1, 2, 21)} | {number: "lamps" for number in (3, 4, 22)}
    shop.offer(categories=kinds)
    rules = (*PLAIN, "publish.not_again_days=0", "publish.max_per={}", "publish.not_like_last_days=7")
    pool = list(range(1, 8))
    for days, expected in ((0, [5, 6, 7, 1, 2]), (5, [3, 4, 5, 6, 7]), (7, [1, 2, 3, 4, 5])):
        day = DAY + timedelta(days=days)
        # The pot is bought a day before the first night, the lamp six days before.
        shop.score(day, {"u": pool}, {"u": [(22, 6 + days), (21, 1 + days)]})
        shop.publish(day, *rules)
        assert shop.shown(day)["u"] == expected
    assert shop.shown(DAY, "feed_recommendations")["u"] == [5, 6, 7, 1, 2, 3, 4]
    assert shop.shown(DAY + timedelta(days=5), "feed_recommendations")["u"] == [3, 4, 5, 6, 7, 1, 2]


def test_a_gate_holds_the_share_of_emails_over_a_cap(shop: Shop) -> None:
    shop.offer(categories={number: "pots" for number in range(1, 12)})
    shop.score(DAY, {"potter": list(range(1, 12)), "other": [20, 21, 22, 23, 24]})
    with pytest.raises(
        GateError, match=r"gates\.max_capped_share: 1 of 2 e-mails .* 0\.5 where at most 0\.4"
    ):
        shop.publish(DAY, CAP, "gates.max_capped_share=0.4")
    assert not shop.context().tables.exists("email_recommendations")
    shop.publish(DAY, CAP, "gates.max_capped_share=0.4", override=frozenset({"max_capped_share"}))
    assert set(shop.shown(DAY)) == {"potter", "other"}


def test_one_title_is_there_once_and_near_duplicates_only_where_nothing_else_is_left(shop: Shop) -> None:
    shop.offer(
        titles={1: "Copper Teapot", 2: "copper  teapot", 3: "Copper Teapot, XL", 4: "Copper Teapot, L"}
    )
    shop.score(DAY, {"rich": FIRST, "poor": [1, 2, 3, 4, 9]})
    counts = shop.publish(DAY, "publish.diversity=0", "publish.max_per={}")
    assert shop.shown(DAY) == {"rich": [1, 5, 6, 7, 8], "poor": [1, 3, 4, 9]}
    assert counts["emails_with_near_duplicates"] == 1


def test_items_that_are_gone_are_in_no_pool(shop: Shop) -> None:
    shop.offer(available={1: False, 2: False})
    shop.score(DAY, {"u": [1, 2, 3, 4, 5, 6, 7]})
    shop.publish(DAY, *PLAIN)
    assert shop.shown(DAY) == {"u": [3, 4, 5, 6, 7]}


def test_an_email_shows_others_than_those_of_the_days_before_until_nothing_else_is_left(shop: Shop) -> None:
    nights = [DAY + timedelta(days=number) for number in range(5)]
    counts = []
    for day in nights:
        shop.score(day, {"u": FIRST, "short": [1, 2, 3, 4, 5, 6, 7]})
        counts.append(shop.publish(day, *PLAIN))
    found = [shop.shown(day) for day in nights]
    assert [mail["u"] for mail in found] == [FIRST[:5], FIRST[5:10], FIRST[10:15], FIRST[15:], FIRST[:5]]
    # Of the items that were shown those of the day before come last.
    assert [mail["short"] for mail in found[:3]] == [[1, 2, 3, 4, 5], [6, 7, 1, 2, 3], [4, 5, 1, 2, 3]]
    assert [one["email_slots_again"] for one in counts] == [0, 3, 5, 5, 5]
    assert all(shop.shown(day, "feed_recommendations")["u"] == FIRST[:10] for day in nights)


def test_feeds_rotate_by_a_setting_of_their_own(shop: Shop) -> None:
    rules = (*PLAIN, "publish.not_again_days=0", "publish.feed_not_again_days=1")
    for day in (DAY, DAY + timedelta(days=1)):
        shop.score(day, {"u": FIRST[:15]})
        shop.publish(day, *rules)
    assert shop.shown(DAY + timedelta(days=1)) == {"u": FIRST[:5]}
    assert shop.shown(DAY + timedelta(days=1), "feed_recommendations") == {"u": [*FIRST[10:15], *FIRST[:5]]}


def test_a_rerun_writes_the_same_rows_also_after_later_dates(shop: Shop) -> None:
    nights = [DAY + timedelta(days=number) for number in range(3)]
    for day in nights:
        shop.score(day, {"u": FIRST})
        shop.publish(day, *PLAIN)
    before = [shop.shown(day) for day in nights]
    version = shop.version()
    for day in nights:
        shop.publish(day, *PLAIN)
    assert shop.version() == version, "each date is there"
    for day in reversed(nights):
        shop.publish(day, *PLAIN, force=True)
    assert [shop.shown(day) for day in nights] == before
    row = Night(shop.context(), nights[1]).latest("publish", "done")
    assert row is not None
    assert row.input_versions["email_recommendations"] > version


def test_a_backfill_leaves_later_dates_as_they_are_until_they_are_run_again(shop: Shop) -> None:
    before = DAY - timedelta(days=1)
    for day in (DAY, before):
        shop.score(day, {"u": FIRST})
        shop.publish(day, *PLAIN)
    assert shop.shown(DAY) == shop.shown(before) == {"u": FIRST[:5]}
    shop.publish(DAY, *PLAIN)
    assert shop.shown(DAY) == {"u": FIRST[5:10]}, "an earlier date has e-mails now"
    version = shop.version()
    shop.publish(DAY, *PLAIN)
    assert shop.version() == version


def test_an_erasure_leaves_later_dates_done(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST, "v": FIRST})
    shop.publish(DAY, *PLAIN)
    after = DAY + timedelta(days=1)
    shop.score(after, {"u": FIRST})
    shop.publish(after, *PLAIN)
    run_forget(shop.context(), "v")
    assert set(shop.shown(DAY)) == {"u"}
    version = shop.version()
    shop.publish(after, *PLAIN)
    assert shop.version() == version


def test_a_column_that_is_missing_is_named_and_nothing_is_written(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST})
    told = r"publish\.max_per\.brand: no column brand in .*products, expected category or one of item_id, "
    with pytest.raises(ConfigError, match=told):
        shop.publish(DAY, "publish.max_per={brand: 2}")
    assert not shop.context().tables.exists("email_recommendations")


def test_by_default_an_email_of_a_varied_list_has_no_more_of_a_category_than_the_cap(shop: Shop) -> None:
    kinds = {number: f"kind {number % 4}" for number in range(1, 31)}
    shop.offer(categories=kinds)
    shop.score(DAY, {f"u{start}": list(range(start, start + 20)) for start in range(1, 11)})
    assert shop.publish(DAY)["emails_over_cap"] == 0
    for numbers in shop.shown(DAY).values():
        assert len(numbers) == 5
        assert max(Counter(kinds[number] for number in numbers).values()) <= 2

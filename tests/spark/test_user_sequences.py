"""User sequences: the cut-off, the order, what is kept, and who has a row."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from allmrec.config import SequencesConfig
from allmrec.data.interactions import counted, rows_before
from allmrec.data.user_sequences import (
    first_sightings,
    num_tied,
    ordered_events,
    seen_items,
    user_sequences,
)
from allmrec.tables.delta import Tables

RUN_DATE = dt.date(2014, 7, 21)
MIDNIGHT = dt.datetime(2014, 7, 21)
SCHEMA = "user_id string, item_id string, event_time timestamp, rating double, event_type string"


def minutes_before(minutes: int) -> dt.datetime:
    return MIDNIGHT - dt.timedelta(minutes=minutes)


def frame(spark: SparkSession, *rows: tuple) -> DataFrame:
    return spark.createDataFrame([(*row, None, None)[:5] if len(row) == 3 else row for row in rows], SCHEMA)


def good(log: DataFrame) -> DataFrame:
    return log.withColumn("reason", F.lit(None).cast("string"))


def built(
    log: DataFrame, settings: SequencesConfig | None = None, users: DataFrame | None = None
) -> dict[str, Row]:
    settings = settings or SequencesConfig()
    log = good(rows_before(log, RUN_DATE))
    rows = user_sequences(log, counted(log, settings), users, settings, RUN_DATE)
    return {row.user_id: row for row in rows.collect()}


def test_sequences_end_before_midnight_and_are_oldest_first_with_ties_by_a_hash(spark: SparkSession) -> None:
    log = frame(
        spark,
        ("u", "late", MIDNIGHT),
        ("u", "b", minutes_before(1)),
        ("u", "a", minutes_before(1)),
        ("u", "c", minutes_before(1)),
        ("u", "z", minutes_before(9)),
        ("v", "late", MIDNIGHT),
    )
    orders = []
    for partitions in (1, 4):
        rows = built(log.repartition(partitions))
        assert list(rows) == ["u"]
        assert (rows["u"].item_ids[0], sorted(rows["u"].item_ids[1:])) == ("z", ["a", "b", "c"])
        orders.append(rows["u"].item_ids)
        assert rows["u"].event_times == [minutes_before(9), *[minutes_before(1)] * 3]
        assert (rows["u"].num_interactions, rows["u"].last_event_time, rows["u"].run_date) == (
            4,
            minutes_before(1),
            RUN_DATE,
        )

    assert orders[0] == orders[1]


def test_a_log_of_dates_is_in_an_order_that_the_ids_do_not_tell(spark: SparkSession) -> None:
    users = [f"u{number:02d}" for number in range(40)]
    items = [f"i{number:02d}" for number in range(20)]
    log = frame(spark, *[(user, item, minutes_before(60)) for user in users for item in items])
    events = ordered_events(log, SequencesConfig()).collect()
    whole = {row.user_id: [event.item_id for event in row.events] for row in events}
    assert all(sorted(whole[user]) == items for user in users)
    # Of 40 last items drawn from 20, 17 are different on average; by the ids' order all 40 are one.
    assert len({whole[user][-1] for user in users}) >= 12
    assert len({whole[user][0] for user in users}) >= 12
    # In a random order half of the pairs rise by their ids.
    rising = sum(left < right for user in users for left, right in pairwise(whole[user]))
    assert 0.4 < rising / (40 * 19) < 0.6
    newest = built(log, SequencesConfig(max_history=5))
    assert {user: row.item_ids for user, row in newest.items()} == {
        user: item_ids[-5:] for user, item_ids in whole.items()
    }
    assert newest["u00"].num_interactions == 20


def test_events_of_one_item_at_one_time_are_one_event_and_the_type_that_counts_is_found(
    spark: SparkSession,
) -> None:
    log = frame(
        spark,
        ("u", "b", minutes_before(9), None, "view"),
        ("u", "a", minutes_before(5), None, "view"),
        ("u", "a", minutes_before(5), None, "cart"),
        ("u", "a", minutes_before(5), None, "purchase"),
        ("u", "a", minutes_before(4), None, "view"),
    )
    row = built(log)["u"]
    assert (row.item_ids, row.num_interactions) == (["b", "a", "a"], 5)
    assert built(log, SequencesConfig(max_history=2))["u"].item_ids == ["a", "a"]
    assert built(log, SequencesConfig(repeats="fold"))["u"].item_ids == ["b", "a"]
    bought = built(log, SequencesConfig(event_types=("purchase",)))["u"]
    assert (bought.item_ids, bought.event_times) == (["a"], [minutes_before(5)])
    tied = spark.createDataFrame([([1, 1, 2, 2, 2],), ([],)], "event_times array<int>")
    assert [row[0] for row in tied.select(num_tied(tied["event_times"])).collect()] == [3, 0]


def test_repeated_items_are_kept_or_folded_to_the_newest(spark: SparkSession) -> None:
    log = frame(
        spark, ("u", "a", minutes_before(9)), ("u", "b", minutes_before(5)), ("u", "a", minutes_before(1))
    )
    assert built(log)["u"].item_ids == ["a", "b", "a"]
    folded = built(log, SequencesConfig(repeats="fold"))["u"]
    assert (folded.item_ids, folded.num_interactions) == (["b", "a"], 3)


def test_only_the_newest_of_a_user_with_100000_events_are_kept(spark: SparkSession) -> None:
    numbers = spark.range(100_000).select(
        F.lit("u").alias("user_id"),
        F.format_string("i%06d", "id").alias("item_id"),
        F.timestamp_seconds(F.col("id")).alias("event_time"),
        F.lit(None).cast("double").alias("rating"),
        F.lit(None).cast("string").alias("event_type"),
    )
    row = built(numbers, SequencesConfig(max_history=3))["u"]
    assert (row.item_ids, row.num_interactions) == (["i099997", "i099998", "i099999"], 100_000)


def test_users_whose_events_do_not_count_and_users_without_events_have_empty_rows(
    spark: SparkSession, tables: Tables
) -> None:
    log = frame(
        spark,
        ("low", "a", minutes_before(3), 1.0, "buy"),
        ("one", "a", minutes_before(3), 5.0, "buy"),
        ("view", "a", minutes_before(3), 5.0, "v"),
    )
    users = spark.createDataFrame([("new",), ("one",), (None,), (" ",)], "user_id string")
    settings = SequencesConfig(min_rating=4.0, event_types=("buy",))
    rows = built(log, settings, users)
    assert {user: row.item_ids for user, row in rows.items()} == {
        "low": [],
        "view": [],
        "new": [],
        "one": ["a"],
    }
    assert (rows["new"].num_interactions, rows["new"].last_event_time, rows["new"].event_times) == (
        0,
        None,
        [],
    )
    frame_to_write = user_sequences(good(log), counted(log, settings), users, settings, RUN_DATE)
    tables.replace_date("user_sequences", frame_to_write, RUN_DATE, order=1)
    assert tables.read_date("user_sequences", RUN_DATE).count() == 4


def test_seen_is_every_item_before_the_cut_off_whether_its_row_is_valid_or_not(spark: SparkSession) -> None:
    log = frame(
        spark,
        ("u", "d", minutes_before(9), 99.0, "buy"),
        ("u", None, minutes_before(9)),
        ("v", None, minutes_before(9)),
        ("u", "b", minutes_before(3), 1.0, "view"),
        ("u", "a", minutes_before(9), 5.0, "buy"),
        ("u", "b", minutes_before(5)),
        ("u", "c", MIDNIGHT),
    )
    seen = {row.user_id: row.seen for row in seen_items(rows_before(log, RUN_DATE)).collect()}
    assert seen == {"u": ["a", "b", "d"]}
    first = {(row.user_id, row.item_id): row.first_time for row in first_sightings(log).collect()}
    assert set(first) == {("u", item) for item in "abcd"}
    assert (first["u", "b"], first["u", "c"]) == (minutes_before(5), MIDNIGHT)


def test_ordered_events_hold_the_whole_log_of_a_user(spark: SparkSession) -> None:
    log = frame(spark, *[("u", f"i{n}", minutes_before(9 - n)) for n in range(9)])
    [row] = ordered_events(log, SequencesConfig(max_history=2)).collect()
    assert [(event.place, event.item_id) for event in row.events] == [(n + 1, f"i{n}") for n in range(9)]
    assert {event.replaced_at for event in row.events} == {None}


def test_a_folded_event_names_the_place_from_which_it_is_no_part_of_the_sequence(
    spark: SparkSession,
) -> None:
    log = frame(spark, *[("u", item, minutes_before(9 - n)) for n, item in enumerate("abcab")])
    [row] = ordered_events(log, SequencesConfig(repeats="fold")).collect()
    assert [event.replaced_at for event in row.events] == [4, 5, None, None, None]

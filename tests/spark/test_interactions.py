"""Bad rows are told apart with their reason, good ones stay; what counts and what is before the cut-off."""

from __future__ import annotations

import datetime as dt
import json

from pyspark.sql import DataFrame, SparkSession

from allmrec.config import SequencesConfig
from allmrec.data.interactions import counted, rows_before
from tests.spark.splitting import validated, validated_items

UTC = dt.timezone.utc
NOW = dt.datetime(2014, 7, 24, tzinfo=UTC)
TEXT = "user_id string, item_id string, event_time string, rating string, event_type string"


def text_rows(spark: SparkSession, *rows: tuple) -> DataFrame:
    return spark.createDataFrame(rows, TEXT)


def catalogue(spark: SparkSession, *items: str) -> DataFrame:
    return spark.createDataFrame([(item,) for item in items], "item_id string")


def reasons(rejected: DataFrame) -> list[str]:
    return sorted(row.reason for row in rejected.collect())


def test_every_kind_of_bad_row_is_rejected_with_its_reason(spark: SparkSession) -> None:
    day = "1406000000"
    bad = {
        "null_user_id": (None, "i", day, "5", None),
        "empty_user_id": (" \t", "i", day, "5", None),
        "null_item_id": ("u", None, day, "5", None),
        "empty_item_id": ("u", "", day, "5", None),
        "null_time": ("u", "i", None, "5", None),
        "unparsable_time": ("u", "i", "yesterday", "5", None),
        "time_after_import": ("u", "i", "1500000000", "5", None),
        "rating_out_of_range": ("u", "i", day, "11", None),
        "item_not_in_catalogue": ("u", "nowhere", day, "5", None),
    }
    good, rejected = validated(
        text_rows(spark, ("u", "i", day, "5.0", None), *bad.values()),
        catalogue(spark, "i", "j"),
        rating_range=(0, 10),
        now=NOW,
    )
    assert [tuple(row) for row in good.collect()] == [
        ("u", "i", dt.datetime(2014, 7, 22, 3, 33, 20), 5.0, None)
    ]
    rows = {row.reason: row for row in rejected.collect()}
    assert sorted(rows) == sorted(bad)
    for reason, values in bad.items():
        assert rows[reason].table == "interactions"
        assert json.loads(rows[reason].row)["user_id"] == values[0]
    assert len({row.row_hash for row in rows.values()}) == len(bad)


def test_times_are_unix_seconds_or_milliseconds_or_iso_and_what_is_neither_is_rejected(
    spark: SparkSession,
) -> None:
    fine = [
        "1406000000",
        "1406000000.5",
        "1.406e9",
        "1406000000000",
        " 1406000000 ",
        "2014-07-22",
        "2014-07-22T03:33:20Z",
        "2014-07-22 05:33:20+02:00",
    ]
    wrong = [
        # Dates, months, years, days since 1970, minutes: numbers that are no Unix times.
        "20140722",
        "201407221030",
        "20140722103000",
        "201407",
        "2014",
        "16273",
        "-1406000000",
        "14060000000",
        "140600000000000000",
        "12:30",
        "22/07/2014",
        "2014-07-22 10:00:00 PST",
        "-",
        "2014-13-45",
        "9" * 30,
        "NaN",
    ]
    rows = [(f"u{number:02d}", "i", time, None, None) for number, time in enumerate(fine + wrong)]
    good, rejected = validated(text_rows(spark, *rows), None, now=NOW)
    at = dt.datetime(2014, 7, 22, 3, 33, 20)
    times = [row.event_time for row in good.orderBy("user_id").collect()]
    assert times == [at, at.replace(microsecond=500000), at, at, at, dt.datetime(2014, 7, 22), at, at]
    # NaN is a word for nothing.
    assert reasons(rejected) == ["null_time", *["unparsable_time"] * (len(wrong) - 1)]


def test_ratings_that_are_no_number_are_rejected_and_missing_ones_are_fine(spark: SparkSession) -> None:
    rows = [
        (f"u{number}", "i", "1406000000", rating, None)
        for number, rating in enumerate([None, "", "0", "10", "NaN", "-0.1", "Infinity", "five"])
    ]
    good, rejected = validated(text_rows(spark, *rows), None, rating_range=(0, 10))
    assert [row.rating for row in good.orderBy("user_id").collect()] == [None, None, 0.0, 10.0]
    assert reasons(rejected) == [*["rating_out_of_range"] * 3, "unparsable_rating"]


def test_one_of_exact_duplicates_is_kept_and_the_others_are_rejected_once(spark: SparkSession) -> None:
    day = "1406000000"
    same = ("u", "i", day, "1", "view")
    others = [("u", "i", day, "2", "view"), ("u", "i", day, "1", None)]
    good, rejected = validated(text_rows(spark, same, same, same, *others), None)
    assert good.count() == 3
    assert reasons(rejected) == ["exact_duplicate"]


def test_rows_of_a_typed_table_are_validated_too_and_ids_stay_strings(spark: SparkSession) -> None:
    schema = "user_id string, item_id string, event_time timestamp, rating double, event_type string"
    rows = [
        ("00123", "007", NOW, 5.0, None),
        ("u", "007", NOW, float("nan"), None),
        ("u", "007", None, 1.0, None),
        (None, "007", NOW, 1.0, None),
    ]
    good, rejected = validated(spark.createDataFrame(rows, schema), catalogue(spark, "007"))
    assert [(row.user_id, row.item_id) for row in good.collect()] == [("00123", "007")]
    # Without a range every number is a rating; NaN is none.
    assert reasons(rejected) == ["null_time", "null_user_id", "rating_out_of_range"]


def test_the_result_does_not_depend_on_partitioning(spark: SparkSession) -> None:
    frame = text_rows(
        spark, *[(f"u{n % 7}", f"i{n % 5}", f"140600000{n % 3}", "1", None) for n in range(120)]
    )
    good, rejected = zip(
        *(
            [sorted(map(str, part.collect())) for part in validated(frame.repartition(*how), None)]
            for how in ((1,), (5,), (5, "event_time"))
        ),
        strict=True,
    )
    assert good[0] == good[1] == good[2]
    assert rejected[0] == rejected[1] == rejected[2]
    # n and n + 105 are equal rows; each of the fifteen repeated ones is rejected once.
    assert (len(good[0]), len(rejected[0])) == (105, 15)


def test_event_types_and_the_minimum_rating_decide_what_counts(spark: SparkSession) -> None:
    schema = "user_id string, item_id string, event_time timestamp, rating double, event_type string"
    rows = [
        ("u", "a", NOW, 5.0, "buy"),
        ("u", "b", NOW, 2.0, "buy"),
        ("u", "c", NOW, None, "buy"),
        ("u", "d", NOW, 5.0, "view"),
    ]
    frame = spark.createDataFrame(rows, schema)

    def items(settings: SequencesConfig) -> list[str]:
        return sorted(row.item_id for row in counted(frame, settings).collect())

    assert items(SequencesConfig()) == ["a", "b", "c", "d"]
    assert items(SequencesConfig(min_rating=4.0)) == ["a", "c", "d"]
    assert items(SequencesConfig(min_rating=4.0, event_types=("buy",))) == ["a", "c"]


def test_nothing_at_or_after_midnight_utc_is_before_the_run_date(spark: SparkSession) -> None:
    midnight = dt.datetime(2014, 7, 21, tzinfo=UTC)
    times = [midnight - dt.timedelta(microseconds=1), midnight, midnight + dt.timedelta(hours=1)]
    frame = spark.createDataFrame(
        [(str(number), time) for number, time in enumerate(times)], "user_id string, event_time timestamp"
    )
    assert [row.user_id for row in rows_before(frame, dt.date(2014, 7, 21)).collect()] == ["0"]


def test_items_are_cleaned_and_bad_ones_are_rejected_with_their_reason(spark: SparkSession) -> None:
    schema = (
        "item_id string, title string, description string, categories array<string>, "
        "available boolean, updated_at timestamp"
    )
    rows = [
        ("a", "<b>Tent</b> &amp; Co", "<p> </p>", ["Sport &amp; Play", "</span>", None], None, None),
        ("b", "older", None, None, False, dt.datetime(2014, 1, 1)),
        ("b", "newer", None, None, False, dt.datetime(2014, 2, 1)),
        ("c", "Repeated", None, None, None, None),
        ("c", "Repeated", None, None, None, None),
        ("c", '<span class="a-size-medium a-color-secondary"', None, None, None, None),
        ("d", " \u200b\t", None, None, None, None),
        ("e", None, None, None, None, None),
        (None, "No id", None, None, None, None),
        (" ", "Empty id", None, None, None, None),
        ("f", "x" * 10_000, None, None, None, None),
    ]
    good, rejected = validated_items(spark.createDataFrame(rows, schema))
    items = {row.item_id: row for row in good.collect()}
    assert sorted(items) == ["a", "b", "c", "f"]
    assert (items["a"].title, items["a"].description, items["a"].categories, items["a"].available) == (
        "Tent & Co",
        None,
        ["Sport & Play"],
        True,
    )
    assert (items["b"].title, items["b"].available, items["c"].title, len(items["f"].title)) == (
        "newer",
        False,
        "Repeated",
        1000,
    )
    assert reasons(rejected) == ["duplicate_item_id"] * 2 + ["empty_item_id"] + ["empty_title"] * 3 + [
        "null_item_id"
    ]

"""Splits and the snapshot: who sees what, and that the test never leaks."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from allmrec.config import Config, SequencesConfig
from allmrec.data import snapshot
from allmrec.data.snapshot import write_snapshot
from allmrec.data.splits import split
from allmrec.data.user_sequences import first_sightings, ordered_events
from allmrec.errors import InputError

DAY = dt.datetime(2026, 5, 1)


def log_of(spark: SparkSession, rows: dict[str, list[str]]) -> DataFrame:
    """The log in which every user has one event a day."""
    events = [
        (user, item, DAY + dt.timedelta(days=number))
        for user, items in rows.items()
        for number, item in enumerate(items)
    ]
    return spark.createDataFrame(events, "user_id string, item_id string, event_time timestamp")


def events_of(spark: SparkSession, rows: dict[str, list[str]], repeats: str = "keep") -> DataFrame:
    return ordered_events(log_of(spark, rows), SequencesConfig.model_validate({"repeats": repeats}))


def by_user(frame: DataFrame) -> dict[str, Row]:
    return {row.user_id: row for row in frame.collect()}


def config(purpose: str = "evaluation", **training: object) -> Config:
    return Config.model_validate(
        {"sequences": {"max_history": 4}, "training": {"purpose": purpose, **training}}
    )


def test_evaluation_tests_everybody_and_holds_back_the_item_before_of_a_seeded_share(
    spark: SparkSession,
) -> None:
    log = events_of(spark, {"three": ["a", "b", "c"], "two": ["a", "b"], "one": ["a"]})
    rows = by_user(split(log, "evaluation", 1.0, 7))
    assert (rows["three"].train_items, rows["three"].held_back, rows["three"].test) == (["a"], "b", "c")
    assert rows["three"].role in ("stage2", "early_stop", "blend")
    assert (rows["three"].held_back_time, rows["three"].test_time) == (
        DAY + dt.timedelta(days=1),
        DAY + dt.timedelta(days=2),
    )
    assert (rows["three"].history, rows["one"].history) == (["a", "b"], None)
    columns = ("train_items", "held_back", "role", "test")
    assert [tuple(rows[user][name] for name in columns) for user in ("two", "one")] == [
        (["a"], None, "", "b"),
        (["a"], None, "", None),
    ]
    published = by_user(split(log, "evaluation", 0.0, 7))["three"]
    assert (published.train_items, published.held_back, published.test) == (["a", "b"], None, "c")


def test_the_share_that_is_held_back_for_evaluation_is_the_one_of_serving(spark: SparkSession) -> None:
    log = events_of(spark, {f"u{n:04d}": ["a", "b", "c"] for n in range(2000)})
    tested, served = (by_user(split(log, purpose, 0.2, 7)) for purpose in ("evaluation", "serving"))
    assert all(row.test == "c" for row in tested.values())
    held_back = {user for user, row in tested.items() if row.held_back == "b"}
    assert 340 < len(held_back) < 460
    assert held_back == {user for user, row in served.items() if row.held_back is not None}
    assert {user: tested[user].role for user in held_back} == {user: served[user].role for user in held_back}


def test_serving_holds_back_the_last_item_of_a_seeded_share_and_tests_nothing(spark: SparkSession) -> None:
    log = events_of(spark, {f"u{n:04d}": ["a", "b", "c"] for n in range(2000)} | {"one": ["a"]})
    rows = by_user(split(log, "serving", 0.2, 7))
    held_back = {user: row for user, row in rows.items() if row.held_back is not None}
    assert 340 < len(held_back) < 460
    assert all(row.train_items == ["a", "b"] and row.held_back == "c" for row in held_back.values())
    assert all(row.test is None for row in rows.values())
    shares = {
        role: sum(row.role == role for row in held_back.values()) / len(held_back)
        for role in ("stage2", "early_stop", "blend")
    }
    assert abs(shares["stage2"] - 0.6) < 0.1
    assert abs(shares["early_stop"] - 0.2) < 0.1
    assert by_user(split(log.repartition(5), "serving", 0.2, 7)) == rows
    other = {
        user for user, row in by_user(split(log, "serving", 0.2, 8)).items() if row.held_back is not None
    }
    assert other != set(held_back)
    with pytest.raises(ValueError, match="purpose"):
        split(log, "both", 0.2, 7)


def test_a_sequence_is_what_it_was_right_before_the_event_that_is_held_back_or_tested(
    spark: SparkSession,
) -> None:
    """Folded, a later event of an item takes it away from its earlier place: later than what is judged."""
    log = events_of(spark, {"u": ["a", "b", "c", "a", "b"]}, "fold")
    row = by_user(split(log, "evaluation", 1.0, 7))["u"]
    assert (row.train_items, row.held_back) == (["a", "b", "c"], "a")
    assert (row.history, row.test) == (["b", "c", "a"], "b")


LOG = {
    "long": ["a", "b", "c", "d", "e", "f", "g"],
    "three": ["c", "b", "a"],
    "two": ["a", "b"],
}


@pytest.fixture
def catalogue(spark: SparkSession) -> DataFrame:
    rows = [
        (item, f"Title {item}", None, ["X"] if item == "a" else None, True, None)
        for item in reversed("abcdefgh")
    ]
    return spark.createDataFrame(
        rows,
        "item_id string, title string, description string, categories array<string>, "
        "available boolean, updated_at timestamp",
    )


def sightings(spark: SparkSession) -> DataFrame:
    """The log's own; everybody also viewed h on the first day, and the item of the last event long after."""
    viewed = [
        (user, item, DAY + after)
        for user, items in LOG.items()
        for item, after in (
            ("h", dt.timedelta()),
            (items[-1], dt.timedelta(days=30)),
            ("d", dt.timedelta(days=30)),
        )
    ]
    views = spark.createDataFrame(viewed, "user_id string, item_id string, event_time timestamp")
    return first_sightings(log_of(spark, LOG).union(views))


def parquet(folder: Path) -> list[dict]:
    return [
        row for file in sorted(folder.glob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()
    ]


def test_a_snapshot_holds_padded_rows_and_never_the_test_item(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshot"
    everybody = config(held_back_share=1.0)
    manifest = write_snapshot(
        events_of(spark, LOG), catalogue, sightings(spark), str(folder), everybody, {"cut_off": "2014-07-21"}
    )
    items = parquet(folder / "items")
    assert [(row["item_idx"], row["item_id"]) for row in items] == list(enumerate("abcdefgh", 1))
    assert [row["num_interactions"] for row in items] == [2, 1, 2, 1, 1, 0, 0, 0]
    assert (items[0]["description"], items[0]["categories"], items[1]["categories"]) == ("", ["X"], [])
    rows = {row["user_id"]: row for row in parquet(folder / "sequences")}
    assert list(rows) == ["long", "three", "two"]
    assert (rows["long"]["item_idx"], rows["long"]["length"], rows["long"]["held_back"]) == (
        [2, 3, 4, 5],
        4,
        6,
    )
    assert (rows["three"]["item_idx"], rows["three"]["length"], rows["three"]["held_back"]) == (
        [0, 0, 0, 3],
        1,
        2,
    )
    assert (rows["two"]["item_idx"], rows["two"]["held_back"], rows["two"]["role"]) == ([0, 0, 0, 1], 0, "")
    held_back = {row["user_id"]: row for row in parquet(folder / "held_back")}
    assert list(held_back) == ["long", "three"]
    # Everything the user had before the item that is held back (f; b), nothing later (d of three).
    assert (held_back["long"]["seen_before"], held_back["three"]["seen_before"]) == (
        [1, 2, 3, 4, 5, 8],
        [3, 8],
    )
    targets = {row["user_id"]: row for row in parquet(folder / "targets")}
    assert targets["three"] == {
        "user_id": "three",
        "history": ["c", "b"],
        "target": "a",
        "seen_before": ["b", "c", "h"],
    }
    assert targets["long"]["history"] == ["c", "d", "e", "f"]
    assert targets["long"]["seen_before"] == ["a", "b", "c", "d", "e", "f", "h"]
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert int(manifest.pop("digest"))
    assert manifest == {
        "num_users": 3,
        "num_items": 8,
        "num_sequences": 3,
        "num_held_back": 2,
        "max_history": 4,
        "purpose": "evaluation",
        "cut_off": "2014-07-21",
    }


def test_snapshots_of_other_rows_in_the_same_numbers_have_another_digest(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path
) -> None:
    swapped = {**LOG, "two": LOG["two"][::-1]}
    logs = (events_of(spark, LOG), events_of(spark, LOG).repartition(3), events_of(spark, swapped))
    first, again, other = (
        write_snapshot(
            log, catalogue, sightings(spark), str(tmp_path / str(number)), config(held_back_share=1.0), {}
        )
        for number, log in enumerate(logs)
    )
    assert again == first
    assert other != first
    assert other | {"digest": first["digest"]} == first


def test_few_shot_trains_on_a_seeded_sample_and_tests_everybody(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path
) -> None:
    log = events_of(spark, {f"u{n:02d}": ["a", "b", "c", "d"] for n in range(20)})
    nothing = sightings(spark).where("false")
    trained = []
    for place, frame in enumerate((log, log.repartition(5))):
        folder = tmp_path / str(place)
        few = config(held_back_share=1.0, max_users=5)
        manifest = write_snapshot(frame, catalogue, nothing, str(folder), few, {})
        assert (manifest["num_users"], manifest["num_sequences"], manifest["num_held_back"]) == (5, 5, 5)
        trained.append({row["user_id"] for row in parquet(folder / "sequences")})
        assert len(parquet(folder / "targets")) == 20
        assert [row["num_interactions"] for row in parquet(folder / "items")][:4] == [5, 5, 0, 0]
    assert trained[0] == trained[1]


def test_files_and_row_groups_do_not_depend_on_partitioning(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "ROW_GROUP_ROWS", 5)
    log = events_of(spark, {f"u{n:03d}": ["a", "b", "c", "d"][: 1 + n % 4] for n in range(120)})
    nothing = sightings(spark).where("false")
    contents = []
    for partitions in (1, 6):
        folder = tmp_path / str(partitions)
        write_snapshot(log.repartition(partitions), catalogue, nothing, str(folder), config(), {})
        files = sorted((folder / "sequences").glob("*.parquet"))
        contents.append([pq.ParquetFile(file).read().to_pylist() for file in files])
        groups = [
            pq.ParquetFile(file).metadata.row_group(number).num_rows
            for file in files
            for number in range(pq.ParquetFile(file).num_row_groups)
        ]
        assert max(groups) <= 5
        assert sum(groups) == 120
    assert contents[0] == contents[1]
    assert 24 <= len(contents[0]) <= 27
    assert all(
        [row["user_id"] for row in rows] == sorted(row["user_id"] for row in rows) for rows in contents[0]
    )


def test_nothing_to_train_on_is_an_error_and_leaves_no_snapshot(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no user has a training interaction"):
        write_snapshot(events_of(spark, {}), catalogue, sightings(spark), str(tmp_path / "s"), config(), {})
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_an_item_that_comes_again_and_one_of_the_same_moment_are_told_apart(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path
) -> None:
    """A view of the same moment as the purchase is no earlier knowledge, a view of the day before is."""
    days = {
        "again": ["a", "b", "a"],
        "before": ["a", "b", "c"],
        "then": ["a", "b", "c"],
        "later": ["a", "b", "c"],
    }
    moments = {"before": 1, "then": 2, "later": 3}
    views = [(user, "c", DAY + dt.timedelta(days=day)) for user, day in moments.items()]
    log = log_of(spark, days).union(spark.createDataFrame(views, log_of(spark, days).schema))
    write_snapshot(events_of(spark, days), catalogue, first_sightings(log), str(tmp_path / "s"), config(), {})
    targets = {row["user_id"]: row for row in parquet(tmp_path / "s" / "targets")}
    assert {user: row["seen_before"] for user, row in targets.items()} == {
        "again": ["a", "b"],
        "before": ["a", "b", "c"],
        "then": ["a", "b"],
        "later": ["a", "b"],
    }
    assert targets["again"]["target"] == "a"


def test_no_row_that_is_trained_on_depends_on_the_test_event(
    spark: SparkSession, catalogue: DataFrame, tmp_path: Path
) -> None:
    contents = []
    for last in ("a", "h"):
        rows = {f"u{n:02d}": [*"abcdefg"[n % 3 : 3 + n % 4], last] for n in range(40)}
        folder = tmp_path / last
        everybody = config(held_back_share=1.0)
        write_snapshot(
            events_of(spark, rows),
            catalogue,
            first_sightings(log_of(spark, rows)),
            str(folder),
            everybody,
            {},
        )
        contents.append([parquet(folder / name) for name in ("items", "sequences", "held_back")])
    assert contents[0] == contents[1]

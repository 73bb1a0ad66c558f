"""Files of every form become the same tables, bad lines get a reason, and importing twice changes nothing."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name

import pytest
from click.testing import CliRunner
from deltalake import DeltaTable as IndependentTable
from pyspark.sql import DataFrame, Row, SparkSession

from allmrec.cli import import_group
from allmrec.config import ImportingConfig, SequencesConfig
from allmrec.data.files.found import Copies
from allmrec.data.importers import IMPORTERS, USERS, Importer, Option
from allmrec.data.importers.amazon import read_amazon
from allmrec.data.importers.mapped import read_files
from allmrec.data.importers.movielens import GENRES, read_movielens
from allmrec.data.importers.reading import Task, fields_of, read_table
from allmrec.data.importers.write import import_into
from allmrec.errors import InputError
from allmrec.tables.delta import Tables
from tests.spark.splitting import validated, validated_items

DEFAULT = ImportingConfig()
RATINGS = SequencesConfig().rating_range
NOW = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)


def quiet(line: str) -> None:
    """Take a report and say nothing."""


def put(path: Path, text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def json_lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def import_files(
    spark: SparkSession, tables: Tables, interactions: str, items: str, config: ImportingConfig = DEFAULT
) -> dict[str, int]:
    return import_into(
        tables, *read_files(spark, interactions, items, config, quiet), config, RATINGS, now=NOW, report=quiet
    )


def checked(
    interactions: DataFrame | None, items: DataFrame
) -> tuple[list[tuple], dict[str, Row], list[tuple[str, str]]]:
    """Return the good events, the good items by id, and (table, reason) of rejected rows; write no table."""
    assert interactions is not None
    good_items, bad_items = validated_items(items)
    events, bad_events = validated(interactions, good_items, rating_range=RATINGS, now=NOW)
    rows = events.orderBy("event_time", "user_id", "item_id").collect()
    bad = sorted((row.table, row.reason) for row in bad_items.union(bad_events).collect())
    return (
        [(row.user_id, row.item_id, row.event_time, row.rating) for row in rows],
        {row.item_id: row for row in good_items.collect()},
        bad,
    )


def log(tables: Tables) -> list[tuple]:
    rows = tables.read("interactions").orderBy("event_time", "user_id", "item_id").collect()
    return [(row.user_id, row.item_id, row.event_time, row.rating) for row in rows]


def versions(tables: Tables) -> dict[str, int]:
    return {
        name: IndependentTable(tables.path(name)).version()
        for name in ("interactions", "items", "rejected_rows")
    }


def rejected(tables: Tables) -> list[tuple[str, str]]:
    return sorted((row.table, row.reason) for row in tables.read("rejected_rows").collect())


ITEMS = json_lines(
    {"item_id": "007", "title": "Tent &amp; Co", "categories": [["Sport", "Tents"], ["Other"]]},
    {
        "item_id": 8,
        "title": "Bag",
        "description": ["Warm.", "Soft."],
        "categories": ["Sport", "Bags"],
        "available": False,
    },
    {"item_id": "9", "title": "Pot", "description": "Steel", "categories": "Kitchen > Pots"},
)


def test_csv_and_json_lines_are_imported_with_literal_ids_and_one_category_path(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    csv = put(
        tmp_path / "log.csv.gz",
        'user_id,item_id,rating,timestamp\n00123,007,5,1400000000\r\n"a,""b""",8,,1400000001\n00123,9,4.5,1400000002\n',
    )
    config = ImportingConfig(category_separator=" > ")
    counts = import_files(spark, tables, csv, put(tmp_path / "items.jsonl", ITEMS), config)
    at = dt.datetime(2014, 5, 13, 16, 53, 20)
    assert log(tables) == [
        ("00123", "007", at, 5.0),
        ('a,"b"', "8", at + dt.timedelta(seconds=1), None),
        ("00123", "9", at + dt.timedelta(seconds=2), 4.5),
    ]
    items = {row.item_id: row for row in tables.read("items").collect()}
    assert {
        key: (row.title, row.description, row.categories, row.available) for key, row in items.items()
    } == {
        "007": ("Tent & Co", None, ["Sport", "Tents"], True),
        "8": ("Bag", "Warm. Soft.", ["Sport", "Bags"], False),
        "9": ("Pot", "Steel", ["Kitchen", "Pots"], True),
    }
    assert counts["interactions_written"] == counts["items_written"] == 3


def test_a_repeated_import_changes_nothing_and_bad_lines_are_rejected_with_their_reason(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    lines = [
        b"user_id,item_id,timestamp",
        b"u,007,1400000000",
        b"u,007,1400000000",
        b"u,8,soon",
        b"u,8,1400000000,too,many",
        b"u\xff\xfe,8,1400000000",
        b"u\x00,8,1400000000",
        b",8,1400000000",
        b"u,404,1400000000",
        b"u,8,1900000000",
    ]
    csv = put(tmp_path / "log.csv", b"\n".join(lines) + b"\n\n")
    items = put(
        tmp_path / "items.jsonl.gz",
        ITEMS.encode() + b'{"item_id": "x"\n\xff\xfe\n{"item_id": "5", "title": ""}\n[]\n',
    )
    counts = import_files(spark, tables, csv, items)
    first = versions(tables)
    expected = [
        "exact_duplicate",
        "item_not_in_catalogue",
        "not_csv",
        "not_utf8",
        "nul_character",
        "null_user_id",
        "time_after_import",
        "unparsable_time",
    ]
    assert rejected(tables) == sorted(
        [("interactions", reason) for reason in expected]
        + [("items", r) for r in ("empty_title", "not_json", "not_utf8")]
        + [("items", "not_json")]
    )
    assert counts["rejected_items_not_json"] == 2
    assert counts["interactions_written"] == 1
    rows = {row.reason: row for row in tables.read("rejected_rows").where("table = 'interactions'").collect()}
    assert json.loads(rows["not_csv"].row) == {"line": "u,8,1400000000,too,many"}
    assert json.loads(rows["unparsable_time"].row)["timestamp"] == "soon"
    again = import_files(spark, tables, csv, items)
    assert (again["interactions_written"], again["items_written"]) == (0, 0)
    assert versions(tables) == first


def test_an_order_without_times_becomes_one_minute_a_position_and_says_so(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    csv = put(tmp_path / "log.csv", "user_id,item_id,position\nu,007,0\nu,8,61\nu,9,first\n")
    lines: list[str] = []
    frames = read_files(spark, csv, put(tmp_path / "items.jsonl", ITEMS), DEFAULT, lines.append)
    import_into(tables, *frames, DEFAULT, RATINGS, now=NOW, report=lines.append)
    assert [row[2] for row in log(tables)] == [dt.datetime(2000, 1, 1), dt.datetime(2000, 1, 1, 1, 1)]
    assert rejected(tables) == [("interactions", "unparsable_time")]
    assert any("synthetic times" in line for line in lines)
    assert any("1 unparsable_time" in line for line in lines)


def test_other_column_names_are_mapped_and_missing_ones_are_named(
    spark: SparkSession, tmp_path: Path
) -> None:
    events = put(
        tmp_path / "log.jsonl",
        json_lines(
            {"uid": 1, "sku": "7", "at": "2014-05-13T16:53:20Z"}, {"uid": 2, "sku": 7, "at": 1400000000}
        ),
    )
    items = put(tmp_path / "items.tsv", "sku\tname\n7\tA tent\n")
    columns = {"user_id": ("uid",), "item_id": ("item_id", "sku"), "event_time": ("at",), "title": ("name",)}
    config = ImportingConfig.model_validate({"columns": columns})
    at = dt.datetime(2014, 5, 13, 16, 53, 20)
    assert checked(*read_files(spark, events, items, config, quiet))[0] == [
        ("1", "7", at, None),
        ("2", "7", at, None),
    ]
    with pytest.raises(InputError, match="no column for user_id, expected one named user_id") as error:
        read_files(spark, events, items, DEFAULT, quiet)
    assert "\n" not in str(error.value)


def test_parquet_and_delta_are_imported_with_their_types(spark: SparkSession, tmp_path: Path) -> None:
    events = spark.createDataFrame(
        [(1, 7, dt.datetime(2014, 5, 13), 4)], "user_id long, item_id long, event_time timestamp, rating int"
    )
    events.write.parquet(str(tmp_path / "events"))
    items = spark.createDataFrame(
        [(7, "A tent", [["Sport", "Tents"]])], "item_id long, title string, categories array<array<string>>"
    )
    items.write.format("delta").save(str(tmp_path / "items"))
    rows, catalogue, _ = checked(
        *read_files(spark, str(tmp_path / "events"), str(tmp_path / "items"), DEFAULT, quiet)
    )
    assert rows == [("1", "7", dt.datetime(2014, 5, 13), 4.0)]
    assert catalogue["7"].categories == ["Sport", "Tents"]


def test_a_truncated_archive_is_named_and_nothing_is_written(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    items = put(tmp_path / "items.jsonl", ITEMS)
    good = put(tmp_path / "good.csv.gz", "user_id,item_id,timestamp\nu,007,1400000000\n")
    import_files(spark, tables, good, items)
    before = versions(tables)
    rows = "".join(f"u{n},007,{1400000000 + n * 7919 % 100003}\n" for n in range(20_000))
    whole = gzip.compress(("user_id,item_id,timestamp\n" + rows).encode())
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"broken\.csv\.gz.*cannot be read to its end.*truncated") as error:
        import_files(spark, tables, str(broken), items)
    assert "\n" not in str(error.value)
    assert versions(tables) == before
    damaged = tmp_path / "damaged.csv.gz"
    damaged.write_bytes(whole[:1000] + b"?" * 1000 + whole[2000:])
    with pytest.raises(InputError, match=r"damaged\.csv\.gz"):
        import_files(spark, tables, str(damaged), items)
    with pytest.raises(InputError, match="no such file"):
        import_files(spark, tables, str(tmp_path / "nowhere.csv"), items)


def test_a_file_without_a_good_row_is_refused_and_nothing_is_written(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    items = put(tmp_path / "items.jsonl", ITEMS)
    with pytest.raises(InputError, match=r"no good row among 1 read \(1 × item_not_in_catalogue\)"):
        import_files(
            spark, tables, put(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,404,1400000000\n"), items
        )
    with pytest.raises(InputError, match="holds no line"):
        import_files(spark, tables, put(tmp_path / "empty.csv", ""), items)
    assert not tables.exists("items")
    assert not tables.exists("rejected_rows")


REVIEWS = (
    json_lines(
        {
            "reviewerID": "A1",
            "asin": "0001",
            "overall": 5.0,
            "unixReviewTime": 1400000000,
            "reviewText": "good",
            "style": {"Size:": " 7"},
        },
        {
            "reviewerID": "A1",
            "asin": "0001",
            "overall": 4.0,
            "unixReviewTime": 1400000000,
            "reviewText": "the same day again",
        },
        {"reviewerID": "A2", "asin": "0002", "overall": 1.0, "unixReviewTime": 1400000001},
    )
    + '{"reviewerID": "A3", "asin": "0001", "overall": NaN, "unixReviewTime": 1400000002}\n'
)


def test_amazon_2018_files_are_imported(spark: SparkSession, tables: Tables, tmp_path: Path) -> None:
    metadata = json_lines(
        {
            "asin": "0001",
            "title": "Gift &amp; Card",
            "description": ["<b>One.</b>", "Two."],
            "category": ["Gift Cards", "Gift &amp; Co", "</span>"],
        },
        {
            "asin": "0002",
            "title": '<span class="a-size-medium a-color-secondary"',
            "description": [],
            "category": [],
        },
        {"asin": "0003", "title": "No category", "description": "", "category": []},
    )
    paths = put(tmp_path / "Gift_Cards.json.gz", REVIEWS), put(tmp_path / "meta_Gift_Cards.json.gz", metadata)
    for _ in range(2):
        import_into(tables, *read_amazon(spark, *paths, DEFAULT), DEFAULT, RATINGS, now=NOW, report=quiet)
    assert [(row[0], row[1], row[3]) for row in log(tables)] == [("A1", "0001", 5.0)]
    items = {row.item_id: row for row in tables.read("items").collect()}
    assert sorted(items) == ["0001", "0003"]
    assert (items["0001"].title, items["0001"].description, items["0001"].categories) == (
        "Gift & Card",
        "One. Two.",
        ["Gift Cards", "Gift & Co"],
    )
    assert rejected(tables) == [
        ("interactions", "item_not_in_catalogue"),
        ("interactions", "rating_out_of_range"),
        ("interactions", "repeated_key"),
        ("items", "empty_title"),
    ]


def test_amazon_2014_metadata_are_python_literals_that_are_read_and_not_run(
    spark: SparkSession, tmp_path: Path
) -> None:
    metadata = (
        "{'asin': '0001', 'title': \"It's a 'tent'\", 'description': 'Warm', 'salesRank': {}, "
        "'categories': [['Sport', 'Tents'], ['Other']]}\n"
        "{'asin': '0002', 'categories': [['Sport']], 'title': 'Caf\\xe9 \\u2603'}\n"
        f"{{'asin': open('{tmp_path}/run', 'w'), 'title': 'code'}}\n"
        '{"asin": "0004", "title": "JSON", "categories": [["Sport"]]}\n'
    )
    paths = put(tmp_path / "reviews.json", REVIEWS), put(tmp_path / "meta.json.gz", metadata)
    _, items, bad = checked(*read_amazon(spark, *paths, DEFAULT))
    assert {item: (row.title, row.description, row.categories) for item, row in items.items()} == {
        "0001": ("It's a 'tent'", "Warm", ["Sport", "Tents"]),
        "0002": ("Café ☃", None, ["Sport"]),
        "0004": ("JSON", None, ["Sport"]),
    }
    assert ("items", "not_json") in bad
    assert not (tmp_path / "run").exists()


def test_amazon_reviews_without_metadata_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reviews without metadata, expected the meta_"):
        read_amazon(spark, put(tmp_path / "reviews.json.gz", REVIEWS), None, DEFAULT)


def movielens_100k(folder: Path) -> None:
    flags = ["0"] * len(GENRES)
    flags[GENRES.index("Comedy")] = flags[GENRES.index("Drama")] = "1"
    item = "2|Les Misérables (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?x|" + "|".join(flags) + "\n"
    put(
        folder / "u.item",
        ("1|Toy Story (1995)|01-Jan-1995|||" + "|".join(["0"] * 19) + "\n" + item).encode("latin-1"),
    )
    put(folder / "u.data", "196\t1\t3\t881250949\n186\t2\t4\t891717742\n186\t2\n")


def movielens_1m(folder: Path) -> None:
    put(
        folder / "movies.dat",
        "1::Toy Story (1995)::\n2::Les Misérables (1995)::Comedy|Drama\n".encode("latin-1"),
    )
    put(folder / "ratings.dat", "196::1::3::881250949\n186::2::4::891717742\n186::2\n")


def movielens_csv(folder: Path) -> None:
    put(
        folder / "movies.csv",
        "movieId,title,genres\n1,Toy Story (1995),(no genres listed)\n2,Les Misérables (1995),Comedy|Drama\n",
    )
    put(
        folder / "ratings.csv",
        "userId,movieId,rating,timestamp\n196,1,3.0,881250949\n186,2,4.0,891717742\n186,2\n",
    )


@pytest.mark.parametrize("write", [movielens_100k, movielens_1m, movielens_csv])
def test_movielens_releases_give_the_same_tables(
    spark: SparkSession, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    events, items, bad = checked(*read_movielens(spark, str(tmp_path), DEFAULT))
    assert events == [
        ("196", "1", dt.datetime(1997, 12, 4, 15, 55, 49), 3.0),
        ("186", "2", dt.datetime(1998, 4, 4, 19, 22, 22), 4.0),
    ]
    assert {item: (row.title, row.categories or []) for item, row in items.items()} == {
        "1": ("Toy Story (1995)", []),
        "2": ("Les Misérables (1995)", ["Comedy", "Drama"]),
    }
    assert [table for table, _ in bad] == ["interactions"]


def test_a_folder_that_is_no_movielens_release_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no MovieLens release, expected a folder with u\.data and u\.item"):
        read_movielens(spark, str(tmp_path), DEFAULT)


def test_settings_of_the_import_choose_ratings_and_the_core(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    rows = [(user, item, 5) for user in ("u", "v") for item in ("007", "8")] + [
        ("w", "007", 5),
        ("w", "9", 5),
        ("x", "9", 1),
    ]
    csv = put(
        tmp_path / "log.csv",
        "user_id,item_id,rating,timestamp\n" + "".join(f"{u},{i},{r},{1400000000}\n" for u, i, r in rows),
    )
    counts = import_files(
        spark, tables, csv, put(tmp_path / "items.jsonl", ITEMS), ImportingConfig(k_core=2, min_rating=4.0)
    )
    assert {row[:2] for row in log(tables)} == {(user, item) for user in ("u", "v") for item in ("007", "8")}
    assert {row.item_id for row in tables.read("items").collect()} == {"007", "8"}
    assert (counts["below_min_rating"], counts["outside_k_core"]) == (1, 2)
    with pytest.raises(InputError, match=r"importing\.k_core: 9 leaves no interaction"):
        import_files(spark, tables, csv, str(tmp_path / "items.jsonl"), ImportingConfig(k_core=9))


@pytest.mark.parametrize("name", IMPORTERS)
def test_the_options_of_an_importer_are_the_parameters_of_its_reader(name: str) -> None:
    importer = IMPORTERS[name]
    parameters = list(signature(resolve_name(importer.reader)).parameters)
    paths = [option.name for option in importer.options if option != USERS]
    assert parameters == ["spark", *paths, "config", "report", "copies"]
    filled = [table for option in importer.options for table in option.fills]
    assert sorted(filled) in (["interactions", "items"], ["interactions", "items", "users"])


def read_receipts(
    spark: SparkSession,
    receipts: str,
    prices: str | None,
    config: ImportingConfig,
    report: Callable[[str], None],
    copies: Copies,
) -> tuple[DataFrame, DataFrame]:
    """Read a form that the package does not know: the catalogue is in the log."""
    assert prices is None
    columns = {"user_id": ("card",), "item_id": ("ean",), "event_time": ("at",), "title": ("article",)}
    events = read_table(
        copies, Task(receipts, "interactions", fields_of("interactions", columns), config, report)
    )
    items = read_table(copies, Task(receipts, "items", fields_of("items", columns), config, report))
    return events, items


RECEIPTS = Importer(
    "Receipts of a till.",
    (
        Option("receipts", "A CSV file.", ("interactions", "items")),
        Option("prices", "Another one.", ("items",), required=False),
        USERS,
    ),
    f"{__name__}:read_receipts",
)


def test_a_new_importer_has_its_command(
    spark: SparkSession, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allmrec.cli.create_session", lambda *_: spark)
    group = import_group({**IMPORTERS, "receipts": RECEIPTS})
    help_text = CliRunner().invoke(group, ["receipts", "--help"]).output
    assert "Receipts of a till." in help_text
    assert "A CSV file.  [required]" in help_text
    assert "Missing option '--receipts'" in CliRunner().invoke(group, ["receipts"]).output
    receipts = put(tmp_path / "till.csv", "card,ean,at,article\nc1,7,2019-05-01,Blue mug\n")
    users = put(tmp_path / "users.csv", "user_id\nc1\nc2\n")
    command = ["receipts", "--receipts", receipts, "--users", users, "--set", f"tables.root={tables.root}"]
    result = CliRunner().invoke(group, command, catch_exceptions=False)
    assert "interactions written: 1" in result.stderr
    assert [row[:2] for row in log(tables)] == [("c1", "7")]
    assert [(row.item_id, row.title) for row in tables.read("items").collect()] == [("7", "Blue mug")]
    assert {row.user_id for row in tables.read("users").collect()} == {"c1", "c2"}

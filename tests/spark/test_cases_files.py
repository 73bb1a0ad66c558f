"""Files as people have them, from reading to the tables: every form, odd names, folders, what is said."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable as IndependentTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig, SequencesConfig, load
from allmrec.data.files import found
from allmrec.data.importers import IMPORTERS
from allmrec.data.importers.amazon import read_amazon
from allmrec.data.importers.mapped import read_files, read_users
from allmrec.data.importers.movielens import read_movielens
from allmrec.data.importers.steam import read_steam
from allmrec.data.importers.write import import_into
from allmrec.data.interactions import counted
from allmrec.data.user_sequences import user_sequences
from allmrec.errors import InputError
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.steps.importing import run_import
from allmrec.tables.delta import Tables
from tests.spark.splitting import validated, validated_items

pytestmark = pytest.mark.reported

NOW = dt.datetime(2027, 1, 1, tzinfo=dt.timezone.utc)
SECONDS = 1_714_600_000
AT = dt.datetime(2024, 5, 1, 21, 46, 40)
"""`SECONDS` as a time."""
EVENT = {"user_id": "u", "item_id": "001", "timestamp": SECONDS}


def put(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def put_parquet(path: Path, **columns: pa.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def config(*settings: str) -> ImportingConfig:
    return load([], [f"importing.{setting}" for setting in settings]).importing


def quiet(line: str) -> None:
    """Take a report and say nothing."""


def csv_of(user: str, separator: str = ",") -> str:
    lines = [["user_id", "item_id", "timestamp"], [user, "001", str(SECONDS)]]
    return "".join(separator.join(line) + "\n" for line in lines)


def logs_of_every_form(folder: Path) -> None:
    """Write one event into every file; its user is called as the file is."""
    put(folder / "index.csv", f",user_id,item_id,timestamp\n0,index,001,{SECONDS}\n")
    put(folder / "order.csv", f"timestamp,item_id,user_id\n{SECONDS},001,order\n")
    put(folder / "spark.csv", '"user_id","item_id","timestamp"\n"spark","001","2024-05-01T21:46:40Z"\n')
    put(folder / "broken_line.csv", f'user_id,item_id,timestamp,note\nbroken_line,001,{SECONDS},"a\nb, c"\n')
    put(folder / "semicolons.txt", csv_of("semicolons", ";"))
    put(folder / "tabs", csv_of("tabs", "\t").replace("\n", "\r\n"))
    put(folder / "hive", csv_of("hive", "\x01"))
    put(folder / "utf16.csv", csv_of("utf16 é").encode("utf-16"))
    put(folder / "mark.csv", csv_of("mark").encode("utf-8-sig"))
    put(folder / "gzip.csv", gzip.compress(csv_of("gzip").encode()))
    put(folder / "bzip2.csv", bz2.compress(csv_of("bzip2").encode()))
    put(folder / "plain.csv.gz", csv_of("plain"))
    put(folder / "log_2026-05-01T10:00.csv", csv_of("colon"))
    put(folder / "[x]{a,b}*?.csv", csv_of("pattern"))
    put(folder / "per%20cent ü.csv", csv_of("per cent"))
    put(folder / "array.json", json.dumps([{**EVENT, "user_id": "array"}], indent=1))
    put(folder / "array.json.gz", gzip.compress(json.dumps([{**EVENT, "user_id": "array gzip"}]).encode()))
    put(folder / "pretty.json", json.dumps({**EVENT, "user_id": "pretty"}, indent=2))
    put(folder / "lines.csv", json.dumps({**EVENT, "user_id": "lines"}) + "\n")
    put(
        folder / "literals.json",
        f"{{u'user_id': u'literals', u'item_id': u'001', u'timestamp': {SECONDS}}}\n",
    )
    with zipfile.ZipFile(folder / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/zip.csv", csv_of("zip"))
        archive.writestr("a/zip gzip", gzip.compress(csv_of("zip gzip").encode()))
        archive.writestr("__MACOSX/a/._zip.csv", b"\x00\x05\x16\x07 nothing of yours")
    put_parquet(
        folder / "nanoseconds.bin",
        user_id=pa.array(["nanoseconds"]),
        item_id=pa.array(["001"]),
        timestamp=pa.array([SECONDS * 10**9], pa.timestamp("ns")),
    )
    put_parquet(
        folder / "day=1" / "item_id=001" / "part.parquet",
        user_id=pa.array(["partition"]),
        timestamp=pa.array([SECONDS], pa.uint32()),
    )
    put(folder / "item_id=001" / "part.csv", f"user_id,timestamp\ncsv partition,{SECONDS}\n")
    put(folder / "empty.csv", "\n")
    put(folder / "_hidden.csv", csv_of("hidden"))
    put(folder / "_SUCCESS", "")


def test_a_folder_of_files_of_every_form_is_read_file_by_file(spark: SparkSession, tmp_path: Path) -> None:
    logs_of_every_form(tmp_path / "log")
    items = put(tmp_path / "_m.csv", "item_id,title\n001,Mug\n")
    said: list[str] = []
    log, _ = read_files(spark, str(tmp_path / "log"), str(items), ImportingConfig(), said.append)
    rows = log.collect()
    assert sorted(row.user_id for row in rows) == sorted(
        "index,order,spark,broken_line,semicolons,tabs,hive,utf16 é,mark,gzip,bzip2,plain,colon,pattern,"
        "per cent,array,array gzip,pretty,lines,literals,zip,zip gzip,nanoseconds,partition,"
        "csv partition".split(",")
    )
    assert {(row.item_id, row.event_time, row.problem) for row in rows} == {("001", AT, None)}
    [hidden] = [line for line in said if "left out" in line]
    assert hidden.endswith("log: left out because of their names: " + f"{tmp_path}/log/_hidden.csv")
    text = "\n".join(said)
    for words in (
        'semicolons.txt: CSV with a header, values separated by ; and enclosed by ", UTF-8; '
        "user_id from user_id, item_id from item_id, event_time from timestamp (Unix numbers or ISO texts)",
        'utf16.csv: CSV with a header, values separated by , and enclosed by ", UTF-16-LE',
        "nanoseconds.bin: Parquet; user_id from user_id, item_id from item_id, event_time from timestamp (na",
        "JSON array",
        "Python literals, one a line",
    ):
        assert words in text, text


def test_catalogues_of_every_form_are_read(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "items"
    put(
        folder / "quoted.csv",
        'item_id,title,description,available,categories\na1,Blue mug,"First line.\nSecond line.",1.0,\n'
        'a2,Red mug,"One, two",,"[\'Home\', \'It\\\'s\']"\na3,"5"" pipe",,0.0,[Sale] Mugs\n'
        "a4,Grey mug,,sold out,\n",
    )
    put(
        folder / "backslash.csv",
        'item_id,title,description\nb1,"The \\"Blue\\" mug, big","x"\nb2,"Red ""Hot""","y"\n',
    )
    put(folder / "decimal.csv", "item_id,title\n10.0,Ten\nNULL,Nothing\n1.23457E+17,Lost\nc1,nan\n")
    put(folder / "case.csv", "item_id,title,Title\nd1,lower,UPPER\n")
    put(
        folder / "tmdb.json",
        json.dumps([{"item_id": 7, "title": "Film", "categories": [{"id": 28, "name": "Action"}]}]),
    )
    put(folder / "shapes.json", '{"item_id": "e1", "title": {"en": "x"}}\n{"item_id": true, "title": "x"}\n')
    put_parquet(
        folder / "typed.parquet",
        item_id=pa.array([8.0, 8.5]),
        title=pa.array([b"Bytes \xc3\xa9", b"\xff\xfe"]),
        categories=pa.array([["A", "B"], []]),
        available=pa.array([0.0, 1.0]),
    )
    log = put(tmp_path / "i.csv", csv_of("u"))
    _, items = read_files(spark, str(log), str(folder), ImportingConfig(), quiet)
    good, bad = validated_items(items)
    rows = {row.item_id: row for row in good.collect()}
    assert {
        key: (row.title, row.description, row.categories, row.available) for key, row in rows.items()
    } == {
        "a1": ("Blue mug", "First line. Second line.", None, True),
        "a2": ("Red mug", "One, two", ["Home", "It's"], True),
        "a3": ('5" pipe', None, ["[Sale] Mugs"], False),
        "b1": ('The "Blue" mug, big', "x", None, True),
        "b2": ('Red "Hot"', "y", None, True),
        "10": ("Ten", None, None, True),
        "d1": ("lower", None, None, True),
        "7": ("Film", None, ["Action"], True),
        "8": ("Bytes é", None, ["A", "B"], False),
    }
    rejected = sorted(((row.reason, json.loads(row.row).get("item_id")) for row in bad.collect()), key=str)
    assert rejected == [
        ("empty_title", "c1"),
        ("null_item_id", "NULL"),
        ("unparsable_available", "a4"),
        ("unparsable_item_id", "1.23457E+17"),
        ("unparsable_item_id", "8.5"),
        ("unparsable_item_id", True),
        ("unparsable_title", "e1"),
    ]


def test_settings_say_what_the_content_does_not(spark: SparkSession, tmp_path: Path) -> None:
    log = put(tmp_path / "log.dat", "u1::001::01.05.2024\nu1::002::20240501\n")
    items = put(tmp_path / "m.csv", "id;Stück\n001;Größe\n002;NULL\n".encode("cp1252"))
    with pytest.raises(InputError, match="if line 1 is no header, name the columns by importing"):
        read_files(spark, str(log), str(items), ImportingConfig(), quiet)
    settings = config(
        "csv.separator='::'",
        "csv.header.interactions=[user_id, item_id, timestamp]",
        "time_format='%d.%m.%Y'",
    )
    rows = read_files(
        spark, str(log), str(put(tmp_path / "x.csv", "item_id::title\n1::x\n")), settings, quiet
    )[0]
    assert [(row.item_id, row.event_time, row.problem) for row in rows.orderBy("item_id").collect()] == [
        ("001", dt.datetime(2024, 5, 1), None),
        ("002", None, "unparsable_time"),
    ]
    settings = config(
        "csv.encoding=windows-1252", "columns.item_id=[id]", "columns.title=[Stück]", "null_words=[]"
    )
    log = put(tmp_path / "log.csv", f"user_id,id,timestamp\nu,001,{SECONDS}\n")
    titles = read_files(spark, str(log), str(items), settings, quiet)[1].orderBy("item_id").collect()
    assert [row.title for row in titles] == ["Größe", "NULL"]


def excel(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("xl/workbook.xml", "<x/>")


def broken_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("i.csv", "".join(f"{random.Random(n).random()}\n" for n in range(2000)))
    path.write_bytes(path.read_bytes()[:3000])


def cut_parquet(path: Path) -> None:
    put_parquet(path, user_id=pa.array(["u"]))
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("i.csv.zip", excel, "an Excel workbook"),
        ("i.zip", broken_zip, "a zip archive that cannot be unpacked"),
        ("i.parquet", cut_parquet, r"without its end \(cut off\?\)"),
        (
            "i.parquet",
            lambda path: put_parquet(path, title=pa.array(["a"]), Title=pa.array(["b"])),
            "columns title and Title differ by case only",
        ),
        (
            "i.parquet",
            lambda path: put_parquet(path, user_id=pa.array(["u"]), clock=pa.array([1], pa.time64("us"))),
            "column clock is a time of day",
        ),
        (
            "i.parquet",
            lambda path: put_parquet(
                path,
                user_id=pa.array([True]),
                item_id=pa.array(["001"]),
                timestamp=pa.array([SECONDS]),
            ),
            "column user_id is boolean, expected for user_id a string, an integer",
        ),
        (
            "i.json",
            lambda path: put(path, '[{"user_id": "u1"}, {"user_id": "u'),
            r"ends with 'u', expected \]",
        ),
        ("i.json", lambda path: put(path, '{"user_id":\n'), "begins like JSON, and line 1 is no object"),
        (
            "i.csv",
            lambda path: put(path, "user_id,user_id,item_id,timestamp\na,b,c,1\n"),
            "two columns are called",
        ),
        ("i.csv", lambda path: put(path, "uid,item_id,timestamp\na,b,1\n"), "it has uid, item_id, timestamp"),
        ("i.xml", lambda path: put(path, "<?xml version='1.0'?><a/>"), "a page of HTML or XML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(
    spark: SparkSession, tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / name)
    items = put(tmp_path / "m.csv", "item_id,title\n001,Mug\n")
    with pytest.raises(InputError, match=message) as error:
        read_files(spark, str(tmp_path / name), str(items), ImportingConfig(), quiet)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)


def test_large_files_are_read_whole_in_several_tasks(spark: SparkSession, tmp_path: Path) -> None:
    rng = random.Random(1)
    titles = [
        f'{rng.random()} "quoted"\n' + "line, of text\n" * rng.randrange(20) + "end" for _ in range(30_000)
    ]
    table = pd.DataFrame({"item_id": [f"i{number}" for number in range(len(titles))], "title": titles})
    table.to_csv(tmp_path / "m.csv", index=False)
    assert (tmp_path / "m.csv").stat().st_size > 4 << 20
    users = [f"u{number}" for number in range(60_000)]
    events = [{"user_id": user, "item_id": "i1", "timestamp": SECONDS, "x": {"y": "}" * 9}} for user in users]
    put(tmp_path / "i.json", json.dumps(events))
    frames = read_files(spark, str(tmp_path / "i.json"), str(tmp_path / "m.csv"), ImportingConfig(), quiet)
    assert frames[1].rdd.getNumPartitions() > 0
    titles_read = {row.item_id: row.title for row in frames[1].select("item_id", "title").collect()}
    assert titles_read == dict(zip(table["item_id"], titles, strict=True))
    assert sorted(row.user_id for row in frames[0].select("user_id").collect()) == sorted(users)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_the_beginning_of_a_file_does_not_show_is_looked_for_in_the_rest(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    monkeypatch.setattr(found, "HEAD", 100)
    lines = [["item_id", "title"], *([f'"{number}"', f'"Mug {number}"'] for number in range(200))]
    # Another order of the columns, so that the files are not read together.
    simple = "".join(separator.join(reversed(line)) + "\n" for line in lines)
    hard = "".join(separator.join(line) + "\n" for line in lines).replace("Mug", "Cup")
    put(tmp_path / "items" / "simple.csv", simple)
    put(tmp_path / "items" / "hard.csv", hard + separator.join(["a", '"One\ntwo ""three"""\n']))
    log = put(tmp_path / "i.csv", csv_of("u"))
    _, items = read_files(spark, str(log), str(tmp_path / "items"), ImportingConfig(), quiet)
    rows = sorted((row.item_id, row.title) for row in items.select("item_id", "title").collect())
    expected = [(str(number), f"{what} {number}") for number in range(200) for what in ("Mug", "Cup")]
    assert rows == sorted([*expected, ("a", 'One\ntwo "three"')])


DATED = """user_id,item_id,timestamp,event_type
u1,a,2026-05-01,view
u1,a,2026-05-01,cart
u1,a,2026-05-01,purchase
u1,b,2026-05-01,view
u2,b,2026-05-02,cart
u2,b,2026-05-02,purchase
u2,c,2026-05-02,purchase
u3,b,soon,purchase
u3,b,2026-05-03,purchase,too much
"""


def test_an_import_says_what_it_read_keeps_every_type_and_changes_nothing_twice(
    spark: SparkSession, tmp_path: Path
) -> None:
    log = put(tmp_path / "_i.csv", DATED)
    items = put(tmp_path / "m.csv", "item_id,title\na,Blue mug\nb,Red mug\n")
    users = put(tmp_path / "users.csv", "user_id\nu1\nnew\n \nNULL\n")
    said: list[str] = []
    settings = load([], [f"tables.root={tmp_path}/t"])
    paths = {"interactions": str(log), "items": str(items), "users": str(users)}
    with Context.open(spark, settings, Report(said.append)) as context:
        run_import(context, IMPORTERS["files"], paths)
        before = context.tables.version("interactions")
        first = len(said)
        run_import(context, IMPORTERS["files"], paths)
        assert context.tables.version("interactions") == before
    assert not (tmp_path / "t" / "_staging").exists() or not list((tmp_path / "t" / "_staging").iterdir())
    rows = IndependentTable(str(tmp_path / "t" / "interactions")).to_pyarrow_table().to_pylist()
    assert sorted((row["user_id"], row["item_id"], row["event_type"]) for row in rows) == [
        ("u1", "a", "cart"),
        ("u1", "a", "purchase"),
        ("u1", "a", "view"),
        ("u1", "b", "view"),
        ("u2", "b", "cart"),
        ("u2", "b", "purchase"),
    ]
    text = "\n".join(said[:first])
    for words in (
        "interactions: 9 rows read, 6 good; rejected: 1 item_not_in_catalogue, 1 not_csv, 1 unparsable_time",
        'item_not_in_catalogue, such as {"user_id":"u',
        'not_csv, such as {"line":"u3,b,2026-05-03,purchase,too much"} (a row of another width',
        'unparsable_time, such as {"user_id":"u3","item_id":"b","timestamp":"soon","event_type":"purchase"} '
        "(importing.time_format names another format",
        "interactions: times from 2026-05-01 00:00:00 to 2026-05-02 00:00:00 UTC, dates without a time",
        "interactions: 4 of 6 have the time of another item of their user",
        "users.csv: rows left out: 1 null_user_id",
        "import: interactions written: 6",
    ):
        assert words in text, text
    log_frame = spark.read.format("delta").load(f"{tmp_path}/t/interactions")
    bought = SequencesConfig(event_types=("purchase",))
    sequences = user_sequences(
        log_frame.withColumn("reason", F.lit(None).cast("string")),
        counted(log_frame, bought),
        None,
        bought,
        dt.date(2026, 6, 1),
    )
    assert {row.user_id: row.item_ids for row in sequences.collect()} == {"u1": ["a"], "u2": ["b"]}


def test_where_nothing_joins_the_ids_of_both_sides_are_shown(
    spark: SparkSession, tables: Tables, tmp_path: Path
) -> None:
    log = put(tmp_path / "i.csv", f"user_id,item_id,timestamp\nu,sku-1,{SECONDS}\nv,sku-2,{SECONDS}\n")
    items = put(tmp_path / "m.csv", "item_id,title\n1,A\n2,B\n")
    frames = read_files(spark, str(log), str(items), ImportingConfig(), quiet)
    with pytest.raises(InputError) as error:
        import_into(
            tables,
            *frames,
            ImportingConfig(),
            (0.0, 10.0),
            now=NOW,
            report=quiet,
            paths={"interactions": str(log)},
        )
    assert str(error.value).startswith(
        f"interactions: no good row among 2 read (2 × item_not_in_catalogue) in {log}; item_not_in"
    )
    assert "the log has 'sku-1', 'sku-2', the catalogue has '1', '2'; nothing was imported" in str(
        error.value
    )
    assert "\n" not in str(error.value)
    assert not tables.exists("items")


def events(log: DataFrame, items: DataFrame) -> list[tuple]:
    good, _ = validated(log, validated_items(items)[0], now=NOW)
    return sorted((row.user_id, row.item_id, row.event_time, row.rating) for row in good.collect())


def test_amazon_2023_and_steam_are_releases(spark: SparkSession, tmp_path: Path) -> None:
    review = {
        "rating": 5.0,
        "title": "t",
        "asin": "B1",
        "parent_asin": "P1",
        "user_id": "U",
        "timestamp": SECONDS * 1000,
    }
    reviews = put(tmp_path / "r.jsonl.gz", gzip.compress(json.dumps(review).encode()))
    item = {
        "main_category": "All Beauty",
        "title": "Comb",
        "features": ["soft", "wide"],
        "description": ["A comb."],
        "price": None,
        "categories": [],
        "details": {"Colour": "red"},
        "parent_asin": "P1",
    }
    metadata = put(tmp_path / "m.jsonl", json.dumps(item) + "\n")
    log, items = read_amazon(spark, str(reviews), str(metadata), ImportingConfig(), quiet)
    assert log is not None
    assert events(log, items) == [("U", "P1", AT, 5.0)]
    [row] = validated_items(items)[0].collect()
    assert (row.title, row.description, row.categories) == ("Comb", "soft wide A comb.", ["All Beauty"])

    reviews = put(
        tmp_path / "steam_reviews.json",
        "{u'username': u'Al', u'product_id': u'30', u'date': u'2017-12-17', u'early_access': False}\n",
    )
    games = put(
        tmp_path / "steam_games.json",
        "{u'id': u'30', u'app_name': u'Bob\\'s game', u'genres': [u'Action'], u'price': 9.99}\n",
    )
    log, items = read_steam(spark, str(reviews), str(games), ImportingConfig(), quiet)
    assert events(log, items) == [("Al", "30", dt.datetime(2017, 12, 17), None)]
    [row] = validated_items(items)[0].collect()
    assert (row.title, row.categories) == ("Bob's game", ["Action"])

    reviews = put(
        tmp_path / "recommendations.csv",
        "app_id,date,is_recommended,hours,user_id\n30,2022-12-12,true,1.5,7\n30,2022-12-13,false,1,8\n",
    )
    games = put(tmp_path / "games.csv", "app_id,title,date_release\n30,Game,2020-01-01\n")
    log, items = read_steam(spark, str(reviews), str(games), ImportingConfig(), quiet)
    assert [(user, rating) for user, _, _, rating in events(log, items)] == [("7", 1.0), ("8", 0.0)]


def test_a_movielens_archive_and_users_of_other_types_are_read(spark: SparkSession, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", f"196::1::3::{SECONDS}\n")
        archive.writestr("ml-1m/movies.dat", "1::Misérables; Les (1995)::Drama|War\n".encode("latin-1"))
    log, items = read_movielens(spark, str(tmp_path / "ml-1m.zip"), ImportingConfig(), quiet)
    assert events(log, items) == [("196", "1", AT, 3.0)]
    [row] = items.collect()
    assert (row.title, row.categories) == ("Misérables; Les (1995)", ["Drama", "War"])
    put_parquet(tmp_path / "users", user_id=pa.array([7.0, 7.0, None, 8.5]))
    said: list[str] = []
    users = read_users(spark, str(tmp_path / "users"), ImportingConfig(), said.append)
    assert [row.user_id for row in users.collect()] == ["7"]
    assert said[-1].endswith("rows left out: 1 null_user_id, 1 unparsable_user_id")

"""Values of every type become ours by one set of rules, or have a reason; in files as in tables in place."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from allmrec.config import SourceConfig, ValueRules
from allmrec.data.importers.positions import time_of
from allmrec.data.in_place import read_in_place
from allmrec.data.times import may_be_before, may_be_since, parsed_time
from allmrec.data.values import Conversion, can_read, read_columns
from allmrec.tables.delta import Tables
from allmrec.tables.sources import Source

pytestmark = pytest.mark.reported

AT = dt.datetime(2026, 5, 1, 10, 30)
SECONDS = 1_777_631_400
"""`AT` as Unix time."""
BAD = "?"
"""A value that cannot be read."""

ID: list[tuple[str, Any]] = [
    ("'00123'", "00123"),
    ("' u1 '", " u1 "),
    ("'1e5'", "1e5"),
    ("'1E5'", "1E5"),
    ("'1.2.0'", "1.2.0"),
    ("'a.0'", "a.0"),
    ("'10.0'", "10"),
    ("'10.50'", "10.50"),
    ("'007.0'", "007.0"),
    ("'1.7850123E7'", "17850123"),
    ("'1.23457E+17'", BAD),
    ("'NULL'", None),
    ("'nan'", None),
    (r"'\\N'", None),
    ("' None '", None),
    ("'Nan'", "Nan"),
    ("'a\\0b'", "nul_character"),
    ("X'FFFE'", "not_utf8"),
    ("CAST('ü' AS BINARY)", "ü"),
    ("CAST(X'C3' AS STRING)", "not_utf8"),
    ("10L", "10"),
    ("CAST(10 AS DOUBLE)", "10"),
    ("CAST(17850123 AS DOUBLE)", "17850123"),
    ("CAST('NaN' AS DOUBLE)", None),
    ("1.5D", BAD),
    ("1.8446744073709552E19D", BAD),
    ("CAST('Infinity' AS DOUBLE)", BAD),
    ("CAST(16777216 AS FLOAT)", "16777216"),
    ("CAST(16777220 AS FLOAT)", BAD),
    ("-7.0D", "-7"),
    ("CAST('12345678901234567890.00' AS DECIMAL(38,2))", "12345678901234567890"),
    ("5.50BD", BAD),
    ("NULL", None),
]
TEXT = [
    ("'2.0'", "2.0"),
    ("1984", "1984"),
    ("'nan'", None),
    ("'a\\0b'", "a\0b"),
    ("3.0D", "3"),
    ("3.5D", BAD),
]
NUMBER = [
    ("'4.5'", 4.5),
    ("' 5 '", 5.0),
    ("''", None),
    ("'NULL'", None),
    ("'five'", BAD),
    ("'4,5'", BAD),
    ("'5d'", BAD),
    ("5", 5.0),
    ("4.5BD", 4.5),
]
FLAG = [
    *(
        (word, True)
        for word in ("'true'", "'Y'", "'yes'", "'1'", "'1.0'", "'17'", "' TRUE '", "true", "3", "0.5D")
    ),
    *(
        (word, False)
        for word in ("'false'", "'N'", "'no'", "'0'", "'0.0'", "'F'", "false", "0", "0.0D", "0BD")
    ),
    *((word, BAD) for word in ("'sold out'", "'k'", "'maybe'", "'-1'", "-1", "'2026-05-01'")),
    *((word, None) for word in ("''", "' '", "'nan'", "'NULL'", "CAST('NaN' AS DOUBLE)", "NULL")),
]
PROSE = [
    ("'A text'", "A text"),
    ("array('One.', NULL, 'Two.')", "One. Two."),
    ('\'["One.", "Two."]\'', "One. Two."),
    ("'[One] two'", "[One] two"),
    ("'{\"a\": 1}'", BAD),
    ("array(CAST(X'FF' AS STRING))", "not_utf8"),
]
PATH = [
    ("array('Sport', 'Tents')", ["Sport", "Tents"]),
    ("array(array('Sport', 'Tents'), array('Other'))", ["Sport", "Tents"]),
    ("array(named_struct('id', 28, 'name', 'Action'))", ["Action"]),
    ("array(28, 12)", ["28", "12"]),
    ("'Sport > Tents'", ["Sport", "Tents"]),
    ("'[Sale] Mugs'", ["[Sale] Mugs"]),
    ('\'["Sport", "Tents"]\'', ["Sport", "Tents"]),
    ("\"['Sport', 'It\\\\'s']\"", ["Sport", "It's"]),
    ('\'[{"id": 28, "name": "Action"}]\'', ["Action"]),
    ("'[{\"id\": 28}]'", BAD),
    ("'[true]'", BAD),
    ("'nan'", None),
    ("''", None),
]
TIME = [
    (str(SECONDS), AT),
    (f"{SECONDS}000", AT),
    (f"'{SECONDS}'", AT),
    (f"{SECONDS}.0D", AT),
    ("'1.7776314E9'", AT),
    ("'2026-05-01T10:30:00Z'", AT),
    ("'2026-05-01 12:30:00+02:00'", AT),
    ("'2026-05-01 10:30:00 UTC'", AT),
    ("'2026-05-01 06:30:00 America/New_York'", AT),
    ("TIMESTAMP'2026-05-01 10:30:00'", AT),
    ("DATE'2026-05-01'", dt.datetime(2026, 5, 1)),
    ("TIMESTAMP_NTZ'2026-05-01 10:30:00'", AT),
    *((number, BAD) for number in ("20260501", "202605011030", "20260501103000", "2026", "20574", "0", "-1")),
    *((f"'{text}'", BAD) for text in ("20260501", "01.05.2026", "10:30", "2026-05-01 10:30:00 PST", "soon")),
    (f"{SECONDS}00", BAD),
    (f"{SECONDS}000000000", BAD),
    ("''", None),
    ("'NaT'", None),
]


@pytest.mark.parametrize(
    ("rule", "cases"),
    [
        ("id", ID),
        ("text", TEXT),
        ("number", NUMBER),
        ("flag", FLAG),
        ("prose", PROSE),
        ("path", PATH),
        ("time", TIME),
    ],
)
def test_a_value_of_every_type_is_read_or_has_its_reason(
    spark: SparkSession, rule: str, cases: list[tuple[str, Any]]
) -> None:
    frame = spark.sql("SELECT " + ", ".join(f"{sql} AS c{number}" for number, (sql, _) in enumerate(cases)))
    rules = ValueRules(category_separator=" > ")
    columns = []
    frame, reads = read_columns(frame, [Conversion(name, rule, BAD, rules) for name in frame.columns])
    for number, read in enumerate(reads):
        columns += [read.value.alias(f"v{number}"), read.fault.alias(f"f{number}")]
    [row] = frame.select(*columns).collect()
    for number, (sql, expected) in enumerate(cases):
        is_bad = expected in (BAD, "not_utf8", "nul_character")
        found = (row[f"v{number}"], row[f"f{number}"])
        assert found == ((None, expected) if is_bad else (expected, None)), sql


def test_types_that_are_no_value_of_ours_are_not_read(spark: SparkSession) -> None:
    kinds = {
        name: field.dataType
        for name, field in zip(
            ("boolean", "map", "struct", "array", "date", "structs"),
            spark.sql(
                "SELECT true, map('a', 1), named_struct('a', 1), array('a'), current_date(), "
                "array(named_struct('a', 1))"
            ).schema,
            strict=True,
        )
    }
    read = {
        name: {
            rule for rule in ("id", "text", "number", "flag", "time", "prose", "path") if can_read(kind, rule)
        }
        for name, kind in kinds.items()
    }
    assert read == {
        "boolean": {"flag"},
        "map": set(),
        "struct": set(),
        "array": {"prose", "path"},
        "date": {"time"},
        "structs": set(),
    }


def test_a_format_says_how_times_are_read(spark: SparkSession) -> None:
    cases = [
        ("20260501", "%Y%m%d", dt.datetime(2026, 5, 1)),
        ("'20260501'", "%Y%m%d", dt.datetime(2026, 5, 1)),
        ("20260501.0D", "%Y%m%d", dt.datetime(2026, 5, 1)),
        ("'01.05.2026'", "%d.%m.%Y", dt.datetime(2026, 5, 1)),
        ("'2026-05-01'", "%d.%m.%Y", dt.datetime(2026, 5, 1)),
        ("'05/01/2026'", "%d.%m.%Y", None),
        (str(SECONDS), "%Y%m%d", AT),
        ("'2026-05-01T10:30:00Z'", "ms", AT),
        ("20261345", "%Y%m%d", None),
        ("'Fri May 01 03:30:00 -0700 2026'", "%a %b %d %H:%M:%S %z %Y", AT),
        ("1000", "s", dt.datetime(1970, 1, 1, 0, 16, 40)),
        (f"{SECONDS}000000", "us", AT),
        (f"'{SECONDS}000000000'", "ns", AT),
        ("9" * 18, "s", None),
    ]
    frame = spark.sql(
        "SELECT " + ", ".join(f"{sql} AS c{number}" for number, (sql, _, _) in enumerate(cases))
    )
    columns = [
        parsed_time(F.col(field.name), field.dataType, time_format).alias(field.name)
        for field, (_, time_format, _) in zip(frame.schema, cases, strict=True)
    ]
    [row] = frame.select(*columns).collect()
    assert list(row) == [expected for _, _, expected in cases]


@pytest.mark.parametrize("time_format", [None, "s", "ms", "ns"])
def test_a_filter_on_times_never_hides_a_row_that_counts(
    spark: SparkSession, time_format: str | None
) -> None:
    day = dt.date(2026, 5, 1)
    edge = 1_777_593_600
    numbers = [edge - 1, edge, edge * 1000 - 1, edge * 1000, edge * 10**9 - 1, edge * 10**9, 0, -1, 20260501]
    numbers += [10**10, 10**11, 10**13, 315_532_799, 315_532_800, 315_532_799_999, 315_532_800_000]
    frame = spark.createDataFrame([(number,) for number in numbers], "t long")
    kind = frame.schema["t"].dataType
    time = parsed_time(F.col("t"), kind, time_format)
    midnight = F.lit(dt.datetime(2026, 5, 1, tzinfo=dt.timezone.utc))
    before = may_be_before(F.col("t"), kind, day, time_format)
    since = may_be_since(F.col("t"), kind, day, time_format)
    assert before is not None
    assert since is not None
    hidden = frame.where((F.coalesce(time < midnight, F.lit(True)) & ~before) | ((time >= midnight) & ~since))
    assert [row.t for row in hidden.collect()] == []


def test_positions_of_a_long_log_keep_their_order_and_lie_before_today(spark: SparkSession) -> None:
    positions = [0.0, 1.0, 61.0, 9_999_999.0, 10_000_000.0, 10_000_001.0, 25e6, 1.7e9, 1.7e12, 1e14, -1.0]
    frame = spark.createDataFrame([(position,) for position in positions], "p double")
    times = [row[0] for row in frame.select(time_of(F.col("p"))).collect()]
    assert times[:3] == [dt.datetime(2000, 1, 1), *(dt.datetime(2000, 1, 1, h, 1) for h in (0, 1))]
    assert times[9:] == [None, None]
    known = [time for time in times if time is not None]
    assert known == sorted(set(known))
    assert known[-1] < dt.datetime(2022, 3, 5)


def test_a_table_in_place_and_a_file_are_read_by_the_same_rules(tables: Tables, spark: SparkSession) -> None:
    path = str(Path(tables.root).parent / "log")
    spark.sql(
        "SELECT * FROM VALUES (17850123D, '10.0', '01.05.2026'), (1.5D, '11', '01.05.2026'), "
        "(7D, 'NULL', '02.05.2026'), (8D, '12', '2026/05/01') AS log(user_id, item_id, event_time)"
    ).write.parquet(path)
    settings = SourceConfig(path=path, format="parquet", time_format="%d.%m.%Y")
    rows = read_in_place(Source(tables, "interactions", settings), None).collect()
    day = dt.datetime(2026, 5, 1)
    assert sorted((str(row.user_id), str(row.item_id), row.event_time, str(row.problem)) for row in rows) == [
        ("17850123", "10", day, "None"),
        ("7", "None", day + dt.timedelta(days=1), "None"),
        ("8", "12", None, "unparsable_time"),
        ("None", "11", day, "unparsable_user_id"),
    ]

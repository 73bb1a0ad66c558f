"""Files for mailing tools: hostile texts stay data, every form reads back as it was, no half file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from allmrec.tables.local_file import as_cell, write_file

HOSTILE = [
    '=HYPERLINK("http://example.org","win")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    'She said "no", twice',
    "a, b; c",
    "two\nlines\r\nand more",
    "Größe 42 – тёплые носки 靴下 🧦",
    "line\u2028separator \x85 here",
    "'already quoted",
    "",
    " = 1",
    "plain",
]
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("slot", pa.int32()),
        ("title", pa.string()),
        ("score", pa.float64()),
        ("price", pa.string()),
    ]
)


def batches() -> Iterator[pa.RecordBatch]:
    """The hostile titles, a batch each, and a row of nulls."""
    for place, title in enumerate(HOSTILE):
        row = {"user_id": f"-{place}", "slot": place, "title": title, "score": -0.5, "price": "-5.00"}
        yield pa.RecordBatch.from_pylist([row], SCHEMA)
    yield pa.RecordBatch.from_pylist([{"user_id": "=1+1"}], SCHEMA)


@pytest.mark.parametrize("title", HOSTILE)
def test_only_a_text_that_a_spreadsheet_might_run_gets_an_apostrophe(title: str) -> None:
    is_formula = title[:1] in {"=", "+", "-", "@", "\t", "\r"}
    assert as_cell(title) == (f"'{title}" if is_formula else title)


@pytest.mark.parametrize("number", ["-5", "-5.00", "+3.5", "-1.0E-7"])
def test_a_number_is_no_formula(number: str) -> None:
    assert as_cell(number) == number


@pytest.mark.parametrize("text", ["-5 degrees", "-", "+", "-1-1", "=5", "-5\n", "-1e"])
def test_what_only_begins_like_a_number_may_be_a_formula(text: str) -> None:
    assert as_cell(text) == f"'{text}"


def test_csv_reads_back_by_other_readers_with_nothing_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "emails.csv"
    assert write_file(path, "csv", SCHEMA, batches()) == len(HOSTILE) + 1
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == SCHEMA.names
    assert [row[2] for row in rows] == [as_cell(title) for title in HOSTILE] + [""]
    assert rows[0] == ["-0", "0", as_cell(HOSTILE[0]), "-0.5", "-5.00"]
    assert rows[-1] == ["'=1+1", "", "", "", ""]
    frame = pd.read_csv(path, dtype={"user_id": str}, keep_default_na=False, na_values={"score": [""]})
    assert list(frame["title"]) == [row[2] for row in rows]
    assert list(frame["score"][:-1]) == [-0.5] * len(HOSTILE)


def test_json_lines_have_one_object_a_line_and_the_texts_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "emails.jsonl"
    assert write_file(path, "jsonl", SCHEMA, batches()) == len(HOSTILE) + 1
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["title"] for row in rows] == [*HOSTILE, None]
    assert rows == [row for batch in batches() for row in batch.to_pylist()]


def test_parquet_has_the_rows_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "emails.parquet"
    assert write_file(path, "parquet", SCHEMA, batches()) == len(HOSTILE) + 1
    assert pq.read_table(path).equals(pa.Table.from_batches(batches()))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_night_without_rows_is_a_file_without_rows(form: str, tmp_path: Path) -> None:
    path = tmp_path / "emails"
    assert write_file(path, form, SCHEMA, []) == 0
    if form == "csv":
        assert path.read_bytes() == ",".join(SCHEMA.names).encode() + b"\r\n"
    if form == "parquet":
        assert pq.read_table(path).schema.equals(SCHEMA)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_failure_leaves_the_file_that_was_there_and_no_part_of_another(form: str, tmp_path: Path) -> None:
    path = tmp_path / "emails"
    path.write_text("yesterday's")

    def failing() -> Iterator[pa.RecordBatch]:
        yield next(batches())
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_file(path, form, SCHEMA, failing())
    assert path.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """No writer asks for a batch before it has written the one before."""
    path = tmp_path / "emails.jsonl"
    sizes: list[int] = []

    def watched() -> Iterator[pa.RecordBatch]:
        batch = pa.RecordBatch.from_pylist([{"title": "x" * 100_000}] * 10, SCHEMA)
        for _ in range(5):
            yield batch
            sizes.extend(part.stat().st_size for part in tmp_path.iterdir())

    write_file(path, "jsonl", SCHEMA, watched())
    assert sizes == sorted(sizes)
    assert sizes[0] > 900_000

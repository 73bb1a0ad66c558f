"""What a file is, told by its content, and its records: every dialect is read, every bad row has a reason."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import random
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allmrec.config import CsvConfig
from allmrec.data.files.dialect import CsvForm, csv_form
from allmrec.data.files.form import Asked, Form, form_of
from allmrec.data.files.objects import Parsed, Wanted, decoded, of_document, of_line
from allmrec.data.files.records import MAX_RECORD, Dialect, _Lines, records
from allmrec.data.lists import listed
from allmrec.errors import InputError

pytestmark = pytest.mark.reported

WANTED = {"user_id", "item_id", "timestamp", "title", "description"}
AUTO = CsvConfig()


def form(text: str, settings: CsvConfig = AUTO, names: tuple[str, ...] | None = None) -> CsvForm:
    return csv_form(text, settings, WANTED, names)


def read(text: str, settings: CsvConfig = AUTO) -> list[list[str] | str]:
    """Return the rows after the header: their values, or the problem of each."""
    found = form(text, settings)
    rows = records(re.split("\r\n|\n|\r", text), found.dialect, len(found.names))
    return [row.fields or str(row.problem) for row in rows if row.fields != list(found.header or ())]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (",user_id,item_id\n0,u,a\n1,u,b\n", [["0", "u", "a"], ["1", "u", "b"]]),
        (
            'item_id,title,description\na,Blue mug,"First line.\nSecond line."\nb,Red mug,"One, two"\n',
            [["a", "Blue mug", "First line.\nSecond line."], ["b", "Red mug", "One, two"]],
        ),
        ('item_id,title\na,"First\n\n\nlast, line"\nb,B\n', [["a", "First\n\n\nlast, line"], ["b", "B"]]),
        (
            'item_id,title,description\na,"The \\"Blue\\" mug, big","x"\nb,"Red ""Hot"" mug","y"\n',
            [["a", 'The "Blue" mug, big', "x"], ["b", 'Red "Hot" mug', "y"]],
        ),
        ('item_id,title\na,"C:\\dir"\nb,"ends \\"\n', [["a", "C:\\dir"], ["b", "ends \\"]]),
        ("user_id;item_id\nu;a,b\n", [["u", "a,b"]]),
        ("user_id\titem, id\tx,y\nu\ta\t1\n", [["u", "a", "1"]]),
        ("user_id|item_id\nu|a\n", [["u", "a"]]),
        ("user_id\x01item_id\nu\x01a\n", [["u", "a"]]),
        ("user_id\r\nu\r\nv", [["u"], ["v"]]),
        ("user_id,item_id\ru,a\rv,b", [["u", "a"], ["v", "b"]]),
        ('"user id","item,id","ti""tle"\n"u","a","b"\n', [["u", "a", "b"]]),
        ('item_id,title\na,"Weird Al" Yankovic\nb,"x"\n', [["a", '"Weird Al" Yankovic'], ["b", "x"]]),
        ('item_id,title\na,5" x 7" print\nb,"x"\n', [["a", '5" x 7" print'], ["b", "x"]]),
        ("item_id,title\na,b,c\nd,e\nf\n", ["not_csv", ["d", "e"], "not_csv"]),
        ("item_id,title\na,\x00\nb,B\n", ["nul_character", ["b", "B"]]),
        ("item_id,title\na,\udcff\nb,é\n", ["not_utf8", ["b", "é"]]),
    ],
)
def test_csv_of_every_dialect_is_read(text: str, rows: list[list[str] | str]) -> None:
    assert read(text) == rows


def test_a_quote_that_is_never_closed_costs_its_own_line_and_no_half_value_is_good() -> None:
    text = 'item_id,title\na,"closed"\nb,"open\nc,C\nd,"D"\ne,"open too\n'
    assert read(text) == [["a", "closed"], "not_csv", ["c", "C"], ["d", "D"], "not_csv"]
    # A whole record of another width is one bad record: its inner lines are no rows.
    assert read('item_id,title\na,"one\nx,y\nlast",extra\nb,B\n') == ["not_csv", ["b", "B"]]


def test_a_file_in_which_quotes_enclose_nothing_is_read_without_them() -> None:
    text = 'item_id\ttitle\na\t"Rome, Open City\nb\t5" pipe\nc\t12" disc\n'
    assert read(text) == [["a", '"Rome, Open City'], ["b", '5" pipe'], ["c", '12" disc']]
    assert "not enclosed" in str(form(text))
    assert read(text, CsvConfig(quote='"'))[0] == "not_csv"


def test_settings_win_over_what_the_content_shows() -> None:
    assert read("item_id::title\na::B; C\n", CsvConfig(separator="::")) == [["a", "B; C"]]
    assert read("item_id;title\na;'b;c'\n", CsvConfig(quote="'")) == [["a", "b;c"]]
    assert read('item_id,title\na,"b\\"c"\n', CsvConfig(escape="doubling")) == ["not_csv"]
    assert read('item_id,title\na,"b\\\\c"\n', CsvConfig(escape="backslash")) == [["a", "b\\c"]]


def test_a_file_without_a_header_has_the_names_of_the_settings() -> None:
    names = ("user_id", "item_id", "timestamp")
    found = form("u;a;1\nv;b;2\n", names=names)
    assert (found.names, found.header, found.dialect.separator) == (names, None, ";")
    found = form("user_id,item_id,timestamp\nu,a,1\n", names=names)
    assert found.header_line == "user_id,item_id,timestamp"


CELLS = st.text(st.sampled_from("ab ,;\t\n\r\"'\\|é\u2028<[{"), max_size=8)


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([",", ";", "\t", "|"])
)
def test_what_pythons_writer_writes_is_read_as_it_was(rows: list[tuple[str, ...]], separator: str) -> None:
    # A row of nothing is a blank line; a lone carriage return ends a line for Spark as for Python.
    rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("user_id", "item_id", "title"), *rows])
    text = buffer.getvalue()
    found = form(text)
    assert found.dialect.separator == separator
    lines = text.split("\n")
    read_back = [row.fields for row in records(lines, found.dialect, 3)]
    assert read_back[1:] == [list(row) for row in rows]


@given(st.lists(st.text(st.sampled_from('ab,"\n\\'), max_size=12), max_size=12))
def test_no_line_of_any_text_is_lost(pieces: list[str]) -> None:
    lines = "\n".join(pieces).split("\n")
    for dialect in (Dialect(), Dialect(escapes=(True, False)), Dialect(quote="")):
        found = list(records(lines, dialect, 2))
        assert "\n".join(record.text for record in found).split("\n") == (
            [line for record in found for line in record.text.split("\n")] or [""]
        )
        kept = [line for record in found for line in record.text.split("\n")]
        assert [line for line in kept if line.strip()] == [line for line in lines if line.strip()]


@given(st.text(st.sampled_from('ab,;"\\ é'), max_size=12))
def test_a_simple_line_is_what_every_reader_reads_alike(line: str) -> None:
    dialect = Dialect(escapes=(False,))
    if dialect.is_simple(line) and line.strip():
        fields = next(csv.reader([line], strict=True))
        [record] = records([line], dialect, len(fields))
        assert record.fields == fields


def test_many_open_quotes_are_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Counter[str]()

    class Counting(_Lines):
        def __next__(self) -> str:
            line = super().__next__()
            taken[line] += 1
            return line

    monkeypatch.setattr("allmrec.data.files.records._Lines", Counting)
    lines = [f'{n},"open' for n in range(50_000)]
    assert sum(record.fields is None for record in records(lines, Dialect(), 2)) == 50_000
    assert max(taken.values()) < 10
    [record] = list(records(['a,"' + "x" * MAX_RECORD], Dialect(), 2))
    assert record.problem == "not_csv"


def formed(data: bytes, settings: CsvConfig = AUTO, is_whole: bool = True) -> Form:
    return form_of("name", data, is_whole, Asked(settings, WANTED))


CSV = "user_id,item_id\nu,é\n"


@pytest.mark.parametrize(
    ("data", "kind", "compression", "encoding"),
    [
        (CSV.encode(), "csv", "", "utf-8"),
        (CSV.encode("utf-8-sig"), "csv", "", "utf-8"),
        (CSV.encode("utf-16"), "csv", "", "utf-16-le"),
        (CSV.encode("utf-16-be"), "csv", "", "utf-16-be"),
        (CSV.encode("utf-16-le"), "csv", "", "utf-16-le"),
        (CSV.encode("utf-32"), "csv", "", "utf-32-le"),
        (gzip.compress(CSV.encode(), mtime=0), "csv", "gzip", "utf-8"),
        (gzip.compress(b"user_id,", mtime=0) + gzip.compress(b"item_id\n", mtime=0), "csv", "gzip", "utf-8"),
        (bz2.compress(CSV.encode()), "csv", "bzip2", "utf-8"),
        (b'[\n {"user_id": 1}\n]\n', "json", "", "utf-8"),
        (b'[{"user_id": 1}]', "json", "", "utf-8"),
        (b'{"user_id": 1}\n{"user_id": 2}\n', "json_lines", "", "utf-8"),
        (b'{"user_id": 1}\n{broken\n', "json_lines", "", "utf-8"),
        (b'{broken\n{"user_id": 1}\n', "json_lines", "", "utf-8"),
        (b"{u'user_id': u'u'}\n", "json_lines", "", "utf-8"),
        (b'{\n "user_id": 1\n}\n{\n "user_id": 2\n}\n', "json", "", "utf-8"),
        (b'{"user_id": 1}{"user_id": 2}', "json", "", "utf-8"),
        (b"[user_id],item_id\nu,a\n", "csv", "", "utf-8"),
        (b"PAR1\x15\x04\x15", "parquet", "", "utf-8"),
        (b"PAR1,item_id\n1,2\n", "csv", "", "utf-8"),
        (b"ORCID,item_id\n1,2\n", "csv", "", "utf-8"),
        (b" \n\n", "empty", "", "utf-8"),
        (b"", "empty", "", "utf-8"),
    ],
)
def test_a_file_is_told_by_its_content(data: bytes, kind: str, compression: str, encoding: str) -> None:
    found = formed(data)
    assert (found.kind, found.compression, found.encoding) == (kind, compression, encoding)
    if kind == "csv" and found.csv is not None:
        assert "item_id" in found.csv.names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04\x14\x00\x00", "a zip archive in another archive"),
        (b"ARROW1\x00\x00\xff", "an Arrow file"),
        (b"Obj\x01\x04\x14", "an Avro file"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b"\x28\xb5\x2f\xfd\x00", "compressed by Zstandard"),
        (b"\x1f\x8bno gzip at all", "damaged gzip data"),
        (bytes(range(32)) * 40, "bytes that are no text"),
        (b'{"user_id":\n', r"line 1 is no object"),
        (gzip.compress(b"x" * 257 + b"ustar\x00", mtime=0), "a tar archive"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        formed(data)
    assert str(found.value).startswith("name: ")
    assert "\n" not in str(found.value)


def test_an_encoding_of_the_settings_counts_where_no_mark_says_another() -> None:
    settings = CsvConfig(encoding="windows-1252")
    assert formed("item_id\né\n".encode("cp1252"), settings).encoding == "cp1252"
    assert formed(CSV.encode("utf-16"), settings).encoding == "utf-16-le"


ASKED = (
    Wanted("user_id", "user_id", "id"),
    Wanted("title", "title", "text"),
    Wanted("categories", "genres", "path"),
    Wanted("available", "available", "flag"),
)


@pytest.mark.parametrize(
    ("line", "values", "problem"),
    [
        ('{"user_id": "00123", "title": "T"}', ["00123", "T", None, None], None),
        ('{"user_id": 10.0, "title": 1984}', ["10", "1984", None, None], None),
        ('{"user_id": 12345678901234567890}', ["12345678901234567890", None, None, None], None),
        ('{"user_id": 1e3, "available": false}', ["1000", None, None, "false"], None),
        ('{"user_id": 5.5}', ["5.5", None, None, None], None),
        ('{"genres": ["a", 7], "available": 1.0}', [None, None, '["a", "7"]', "1"], None),
        ('{"user_id": true}', [None] * 4, "unparsable_user_id"),
        ('{"user_id": {"$oid": "5"}}', [None] * 4, "unparsable_user_id"),
        ('{"title": ["T"]}', [None] * 4, "unparsable_title"),
        ('{"genres": {"a": 1}}', [None] * 4, "unparsable_categories"),
        ("{u'user_id': u'u\\'1', u'available': False}", ["u'1", None, None, "false"], None),
        ('{"user_id": "\\ud800"}', [None] * 4, "not_utf8"),
        ('{"user_id": ', [None] * 4, "not_json"),
        ("[]", [None] * 4, "not_json"),
        ("{'user_id': open('x')}", [None] * 4, "not_json"),
        ('{"a":' * 50_000, [None] * 4, "not_json"),
    ],
)
def test_an_object_gives_texts_of_the_right_shape(line: str, values: list[str], problem: str | None) -> None:
    found = of_line(line.encode(), ASKED)
    assert found is not None
    assert (found.values, found.problem) == (values, problem)
    assert isinstance(json.loads(found.raw), dict)


def document(text: str) -> list[Parsed]:
    return list(of_document(text.encode().removesuffix(b"}").split(b"}"), ASKED, "i.json"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab{}[]",\\é\n')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), max_size=5), st.booleans())
def test_a_document_is_read_object_by_object(objects: list[dict[str, Any]], is_array: bool) -> None:
    indent = random.Random(len(objects)).choice([None, 2])
    if is_array:
        text = json.dumps(objects, indent=indent)
    else:
        text = "\n".join(json.dumps(one, indent=indent) for one in objects)
    assert [json.loads(row.raw) for row in document(text)] == objects


@pytest.mark.parametrize(
    "text",
    ['[{"a": 1}, {"a" 2}, {"a": 3}]', '[{"a": 1}, 5, {"a": 2}]', '[{"a": 1}] x', '[{"a": 1}, {"a": "2}'],
)
def test_a_broken_document_is_refused_by_name_and_place(text: str) -> None:
    with pytest.raises(
        InputError, match=r"i\.json: broken JSON after object 1: .*nothing was imported"
    ) as found:
        document(text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "texts", "is_wrong"),
    [
        ('["a", "b"]', ["a", "b"], False),
        ("['It\\'s', None, 7]", ["It's", "7"], False),
        ("['a' 'b'\n 'c']", ["a", "b", "c"], False),
        ('[["Sport", "Tents"], ["Other"]]', ["Sport", "Tents"], False),
        ('[{"id": 28, "name": "Action"}]', ["Action"], False),
        ("[]", [], False),
        ("[28.0, 12]", ["28", "12"], False),
        ("[Sale] Mugs", None, False),
        ("{Limited} edition", None, False),
        ("plain", None, False),
        ('{"name": "Action"}', None, True),
        ('[{"id": 28}]', None, True),
        ("[true]", None, True),
        ("[" * 100_000, None, False),
    ],
)
def test_a_list_that_is_written_as_a_text_is_a_list(text: str, texts: list[str], is_wrong: bool) -> None:
    assert listed(text) == (texts, is_wrong)


def test_python_literals_are_read_and_never_run() -> None:
    line = "{'asin': 'B1', 'title': \"It's\", 'salesRank': {'Toys': 5}}"
    assert decoded(line) == ({"asin": "B1", "title": "It's", "salesRank": {"Toys": 5}}, False)
    for line in (
        "__import__('os').system('true')",
        "{'a': open('x')}",
        "{'a': ",
        "(" * 10_000,
        "{'a': {}: 1}",
    ):
        assert decoded(line) == (None, False)

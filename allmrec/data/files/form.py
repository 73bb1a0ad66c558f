"""The form of a file by its first bytes: compression, encoding, format."""

from __future__ import annotations

import bz2
import codecs
import json
import re
import zlib
from collections.abc import Collection
from typing import Literal, NamedTuple

from allmrec.config import CsvConfig
from allmrec.data.files.dialect import CsvForm, csv_form
from allmrec.data.files.objects import decoded
from allmrec.errors import InputError

ZIP = b"PK\x03\x04"
_COMPRESSIONS = {rb"\x1f\x8b": "gzip", rb"BZh[1-9]1AY&SY": "bzip2"}
"""Pattern of the first bytes → compression."""
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Mark → encoding. UTF-32 precedes UTF-16, because its mark begins with that of UTF-16."""
_UNREADABLE = {
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"ARROW1": "an Arrow file",
    b"FEA1": "a Feather file",
    b"PARE": "an encrypted Parquet file",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"PK\x05\x06": "an empty zip archive",
    ZIP: "a zip archive in another archive",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "a SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
    b"%PDF": "a PDF",
}
"""First bytes of unreadable files → their format."""
_MARKUP = ("<!doctype html", "<html", "<?xml")
_MAX_LINES = 2000
_SAMPLE = 1000
"""How many bytes or characters are checked for being text."""
_CONTROL = re.compile("[\x00\x02-\x08\x0e-\x1a\x1c\x1d\x1f\x7f]")
"""Characters that are rare in texts and early in binary files. Hive separates values by ^A."""
_SHARE_OF_CONTROLS = 0.1
_SHARE_OF_ZEROS = 0.3
"""Share of zero bytes at even or odd positions that makes a text UTF-16."""


class Form(NamedTuple):
    """The form of a file."""

    kind: Literal["csv", "json_lines", "json", "parquet", "empty"]
    """`json` is a document: an array, or objects over several lines."""
    compression: str = ""
    """gzip or bzip2; empty without compression."""
    encoding: str = "utf-8"
    """Python's name of the encoding."""
    csv: CsvForm | None = None
    """Form of CSV; None for other kinds."""
    keys: tuple[str, ...] = ()
    """Keys of the first objects of JSON."""
    end: str = ""
    """The last character of a JSON document."""
    is_literal: bool = False
    """Whether the objects are Python literals."""

    def __str__(self) -> str:
        """Return the form in words."""
        words = {
            "json_lines": "Python literals, one a line" if self.is_literal else "JSON, one object a line",
            "json": "a JSON array" if self.end == "]" else "JSON objects over several lines",
            "parquet": "Parquet",
            "empty": "empty",
        }
        said = [str(self.csv) if self.csv else words[self.kind]]
        if self.kind not in ("parquet", "empty"):
            said.append(self.encoding.upper())
        return ", ".join([*said, *([self.compression] if self.compression else [])])


class Asked(NamedTuple):
    """Knowledge of a file beside its content."""

    settings: CsvConfig
    wanted: Collection[str]
    """Names of wanted columns."""
    names: tuple[str, ...] | None = None
    """Columns of a CSV file without a header."""


def form_of(name: str, head: bytes, is_whole: bool, asked: Asked) -> Form:
    """Return the form of a file by its beginning `head`.

    Raises InputError, with the file's name, for an unreadable form.
    """
    compression = next((kind for magic, kind in _COMPRESSIONS.items() if re.match(magic, head)), "")
    content = _decompressed(name, head, compression)
    is_binary = _CONTROL.search(content[:_SAMPLE].decode("latin-1")) is not None
    if content.startswith(b"PAR1") and is_binary:
        return Form("parquet", compression)
    if is_binary:
        _refuse(name, content)
    encoding = _encoding(content, asked.settings)
    text = content.decode(encoding, "replace").removeprefix("\ufeff")
    if len(_CONTROL.findall(text[:_SAMPLE])) > _SHARE_OF_CONTROLS * len(text[:_SAMPLE]):
        raise _unreadable(name, "bytes that are no text")
    if text.lstrip()[:20].lower().startswith(_MARKUP):
        raise _unreadable(name, "a page of HTML or XML")
    if not text.strip():
        return Form("empty", compression)
    return _of_text(name, text, is_whole, asked)._replace(compression=compression, encoding=encoding)


def _of_text(name: str, text: str, is_whole: bool, asked: Asked) -> Form:
    """Return the form of a text, without compression and encoding."""
    begin = text.lstrip()[:1]
    if begin == "[" and text.lstrip()[1:].lstrip()[:1] in ("{", "]"):
        return Form("json", keys=_keys_of_document(text.lstrip()[1:]), end="]")
    if begin == "{":
        return _of_objects(name, text, is_whole)
    lines = text if is_whole else text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    return Form("csv", csv=csv_form(lines, asked.settings, asked.wanted, asked.names))


def _of_objects(name: str, text: str, is_whole: bool) -> Form:
    """Return the form of a text that begins with a brace."""
    lines = [line for line in text.splitlines() if line.strip()]
    values = [decoded(line) for line in (lines if is_whole else lines[:-1] or lines)[:_MAX_LINES]]
    objects = [(value, is_json) for value, is_json in values if isinstance(value, dict)]
    if objects and (isinstance(values[0][0], dict) or not _keys_of_document(text)):
        keys = dict.fromkeys(str(key) for value, _ in objects for key in value)
        return Form("json_lines", keys=tuple(keys), is_literal=not any(is_json for _, is_json in objects))
    keys_of_document = _keys_of_document(text)
    if keys_of_document:
        return Form("json", keys=keys_of_document, end="}")
    if not is_whole and len(lines) == 1:
        return Form("json_lines")
    shown = " ".join(lines[0][:200].split())
    raise InputError(
        f"{name}: begins like JSON, and line 1 is no object ({shown}), expected one object a line, an array, "
        "or Python literals; mend the file"
    )


def _keys_of_document(text: str) -> tuple[str, ...]:
    """Return the keys of a document's first complete objects."""
    decoder = json.JSONDecoder()
    keys: dict[str, None] = {}
    text = text.lstrip()
    while text.startswith("{"):
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            break
        keys |= dict.fromkeys(value)
        text = text[end:].lstrip(" \t\r\n,")
        if len(keys) > 0 and len(text) > 1 << 16:
            text = text[: 1 << 16]
    return tuple(keys)


def _decompressed(name: str, head: bytes, compression: str) -> bytes:
    """Return the decompressed beginning of a file of compressed members."""
    parts: list[bytes] = []
    try:
        while head and compression:
            stream = (
                zlib.decompressobj(zlib.MAX_WBITS | 16) if compression == "gzip" else bz2.BZ2Decompressor()
            )
            parts.append(stream.decompress(head))
            head = stream.unused_data
    except (zlib.error, OSError) as error:
        if not parts:
            raise InputError(f"{name}: damaged {compression} data ({error}); fetch it again") from error
    return b"".join(parts) if compression else head


def _refuse(name: str, content: bytes) -> None:
    """Raise InputError for the first bytes of an unreadable format."""
    for magic, what in _UNREADABLE.items():
        if content.startswith(magic):
            raise _unreadable(name, what)
    if content[257:262] == b"ustar":
        raise _unreadable(name, "a tar archive")


def _unreadable(name: str, what: str) -> InputError:
    return InputError(
        f"{name}: {what}, expected CSV, JSON, Parquet or Delta, maybe compressed by gzip, bzip2 or zip; "
        "unpack or convert it first"
    )


def _encoding(content: bytes, settings: CsvConfig) -> str:
    """Return the encoding by byte order mark, else settings, else zero bytes."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    if settings.encoding is not None:
        return codecs.lookup(settings.encoding).name.replace("utf-8-sig", "utf-8")
    sample = content[:_SAMPLE]
    if sample[1::2].count(0) > _SHARE_OF_ZEROS * len(sample):
        return "utf-16-le"
    if sample[::2].count(0) > _SHARE_OF_ZEROS * len(sample):
        return "utf-16-be"
    return "utf-8"

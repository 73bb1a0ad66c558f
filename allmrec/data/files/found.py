"""The files below a path, each with its form.

Archives are unpacked. Files that Spark cannot read at their place are copied.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from allmrec.data.files.form import ZIP, Asked, Form, form_of
from allmrec.errors import InputError
from allmrec.spark import file_bytes, filesystem
from allmrec.spark.file_bytes import FileStatus

COPIES = "import-"
"""How names of folders of copies below `tables.root` begin."""
HEAD = 1 << 20
"""How many bytes of a file are read for its form."""
SHORT_HEAD = 1 << 16
MANY = 16
"""Folders with more files than this read only `SHORT_HEAD` bytes of each."""
_ENDINGS = {"gzip": ".gz", "bzip2": ".bz2"}
"""Endings of names by which Hadoop decompresses."""
_DECOMPRESSED = re.compile(r"\.(gz|bz2|deflate|lz4|snappy|zst)$", re.IGNORECASE)
_MARKERS = re.compile(r"(^|/)(_SUCCESS|_committed_\w+|_started_\w+|_common_metadata|_metadata|[^/]*\.crc)$")
"""Files without data that Spark and others leave in folders."""
_HIDDEN = re.compile(r"(^|/)(_(?![^/]*=)|\.|__MACOSX/)")
_JAVA_CHARSETS = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "utf-32-le": "UTF-32LE"} | {
    "utf-32-be": "UTF-32BE"
}
_TEXT = {"ascii", "utf-8", "utf-8-sig"}
"""Encodings that Spark reads without a copy."""


class FoundFile(NamedTuple):
    """A file that Spark can read."""

    name: str
    """Its name in messages."""
    uri: str
    """Where Spark reads it."""
    length: int
    """Its bytes there."""
    form: Form
    is_whole: bool
    """Whether the whole file was read for its form."""


class Copies:
    """A folder for copies of files that Spark cannot read in place.

    The caller deletes it.
    """

    def __init__(self, spark: SparkSession, folder: str) -> None:
        self.spark = spark
        self.folder = folder
        self._number = 0

    @classmethod
    def of_this_process(cls, spark: SparkSession) -> Copies:
        """Return copies on this machine's disk, deleted when the process ends."""
        folder = tempfile.mkdtemp(prefix="allmrec-import-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return cls(spark, folder)

    def place(self, name: str = "") -> str:
        """Return a free path below the partition folders (`day=1`) of `name`."""
        self._number += 1
        parts = name.split("/")
        folders = [part for part in parts[:-1] if "=" in part]
        last = re.sub(r"[^\w.-]", "_", parts[-1]).lstrip("_.") or "file"
        return "/".join([self.folder, str(self._number), *folders, last])

    def unpacked(self, name: str, uri: str) -> list[tuple[str, FileStatus]]:
        """Return (name in the archive, copy) of its visible files.

        Raises InputError where the archive cannot be unpacked, or is a workbook.
        """
        with _explained(name, "a zip archive that cannot be unpacked"):
            members = file_bytes.unpack(self.spark, uri, self.place())
        if any(member.startswith("xl/") for member, _ in members):
            raise InputError(
                f"{name}: an Excel workbook, expected CSV, JSON, Parquet or Delta; save it as CSV"
            )
        return [(member, copy) for member, copy in members if not _HIDDEN.search(member)]

    def delete(self) -> None:
        """Delete the folder with its content, if anything was copied."""
        if self._number:
            filesystem.delete(self.spark, self.folder)


def find(copies: Copies, path: str, asked: Asked, report: Callable[[str], None]) -> list[FoundFile]:
    """Return the files below a path that are not empty.

    Hidden files of a folder are skipped and reported. Raises InputError where the path does not exist, all
    files are empty, or a file cannot be read.
    """
    spark = copies.spark
    root = file_bytes.qualified(spark, path)
    if not filesystem.exists(spark, root):
        raise InputError(f"{path}: no such file or folder; check the path")
    listed = [(_name(path, root, status), status) for status in file_bytes.files_in(spark, root)]
    is_folder = [name for name, _ in listed] != [path]
    if is_folder:
        hidden = [name for name, _ in listed if _HIDDEN.search(name.removeprefix(path).lstrip("/"))]
        said = [name for name in hidden if not _MARKERS.search(name)]
        if said:
            report(
                f"{path}: left out because of their names: {', '.join(said[:5])}{', …' if said[5:] else ''}"
            )
        listed = [(name, status) for name, status in listed if name not in set(hidden)]
    found = []
    for name, status in _unpacked(copies, listed):
        file = _found(copies, name, status, SHORT_HEAD if len(listed) > MANY else HEAD, asked)
        if file.form.kind != "empty":
            found.append(file)
    if not found:
        raise InputError(f"{path}: holds no line, expected at least one")
    return found


def _name(path: str, root: str, status: FileStatus) -> str:
    """Return a file's name in messages: the path, and its rest."""
    below = status.uri.removeprefix(root.rstrip("/"))
    return path.rstrip("/") + below if below else path


def _unpacked(copies: Copies, listed: list[tuple[str, FileStatus]]) -> Iterator[tuple[str, FileStatus]]:
    """Yield the files, with zip archives replaced by their members."""
    for name, status in listed:
        if file_bytes.first_bytes(copies.spark, status.uri, len(ZIP)) != ZIP:
            yield name, status
            continue
        for member, copy in copies.unpacked(name, status.uri):
            yield f"{name}/{member}", copy


def _found(copies: Copies, name: str, status: FileStatus, num_bytes: int, asked: Asked) -> FoundFile:
    """Return a file with its form, copied if Spark cannot read it."""
    spark = copies.spark
    head = file_bytes.first_bytes(spark, status.uri, num_bytes)
    is_whole = status.length <= num_bytes
    form = form_of(name, head, is_whole, asked)
    last_name = status.uri.rpartition("/")[2]
    must_decompress = form.compression != "" and form.kind in ("parquet", "json")
    charset = _java_charset(spark, name, form)
    ending = "" if must_decompress or charset else _ENDINGS.get(form.compression, "")
    is_decompressed = _DECOMPRESSED.search(last_name) is not None
    has_ending = last_name.lower().endswith(ending) if ending else not is_decompressed
    is_plain_name = not last_name.startswith(("_", ".")) and ":" not in last_name
    if must_decompress or charset or not is_plain_name or (form.kind != "parquet" and not has_ending):
        target = copies.place(_DECOMPRESSED.sub("", name)) + ending
        compression = "" if ending else form.compression
        with _explained(name, f"no {form.encoding} to its end" if charset else "cannot be read to its end"):
            status = file_bytes.copy(spark, status.uri, target, compression, charset)
    if form.kind == "json":
        end = file_bytes.last_bytes(spark, status, HEAD).decode("utf-8", "replace").rstrip()[-1:]
        if end != form.end:
            raise InputError(f"{name}: ends with {end!r}, expected {form.end} (cut off?); fetch it again")
    return FoundFile(name, status.uri, status.length, form, is_whole)


def _java_charset(spark: SparkSession, name: str, form: Form) -> str:
    """Return Java's name of an encoding; empty if Spark needs none.

    Raises InputError where Java lacks the encoding.
    """
    if form.encoding in _TEXT or form.kind in ("parquet", "empty"):
        return ""
    charset = _JAVA_CHARSETS.get(form.encoding, form.encoding)
    if not file_bytes.has_charset(spark, charset):
        raise InputError(f"{name}: {form.encoding}, which Java does not know; write the file as UTF-8")
    return charset


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Raise InputError, with the file's name, where Java cannot read its bytes."""
    try:
        yield
    except Py4JJavaError as error:
        cause = str(error.java_exception.toString())[:300].splitlines()[0]
        raise InputError(f"{name}: {what}: {cause}; unpack it first, or fetch it again") from error

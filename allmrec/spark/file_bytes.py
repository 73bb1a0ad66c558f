"""Bytes of files on any file system of Hadoop.

Names are taken literally, also those with colons and brackets, which Hadoop's patterns cannot express.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from allmrec.spark.filesystem import _open
from allmrec.spark.session import java_class

_HAS_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:/")


class FileStatus(NamedTuple):
    """A file."""

    uri: str
    length: int
    """Bytes."""


def qualified(spark: SparkSession, path: str) -> str:
    """Return a path as a URI with its scheme. Relative paths are in Hadoop's working folder."""
    if not (path.startswith("/") or _HAS_SCHEME.match(path)):
        # The texts are joined, because Hadoop reads the part before a colon in a relative path as a scheme.
        path = f"{_open(spark, '/')[0].getWorkingDirectory().toString()}/{path}"
    fs, place = _open(spark, path)
    return str(fs.makeQualified(place).toString())


def files_in(spark: SparkSession, uri: str) -> list[FileStatus]:
    """Return the files below a folder, sorted by URI. For a file, that file alone."""
    fs, path = _open(spark, uri)
    found: list[FileStatus] = []
    todo = [path]
    while todo:
        for status in fs.listStatus(todo.pop()):
            if status.isDirectory():
                todo.append(status.getPath())
            else:
                found.append(FileStatus(str(status.getPath().toString()), int(status.getLen())))
    return sorted(found)


def first_bytes(spark: SparkSession, uri: str, number: int) -> bytes:
    """Return the first bytes of a file, at most `number`."""
    with _opened(spark, uri) as stream:
        bounded = java_class(spark, "org.apache.commons.io.input.BoundedInputStream")(stream, number)
        return _all_bytes(spark, bounded)


def last_bytes(spark: SparkSession, file: FileStatus, number: int) -> bytes:
    """Return the last bytes of a file, at most `number`."""
    with _opened(spark, file.uri) as stream:
        stream.seek(max(file.length - number, 0))
        return _all_bytes(spark, stream)


def copy(spark: SparkSession, uri: str, target: str, compression: str = "", charset: str = "") -> FileStatus:
    """Copy a file to `target` and return the copy.

    With `compression` (gzip, bzip2) it is decompressed; with `charset` (Java's name) it is written as UTF-8.
    Raises Py4JJavaError where the content has another compression or charset.
    """
    with _opened(spark, uri) as stream, _created(spark, target) as output:
        source = _decompressed(spark, stream, compression)
        io = java_class(spark, "org.apache.commons.io.IOUtils")
        if charset:
            # A new decoder raises on bytes that it cannot decode; the reader's own writes question marks.
            decoder = java_class(spark, "java.nio.charset.Charset").forName(charset).newDecoder()
            reader = java_class(spark, "java.io.InputStreamReader")(source, decoder)
            writer = java_class(spark, "java.io.OutputStreamWriter")(output, "UTF-8")
            io.copyLarge(reader, writer)
            writer.flush()
        else:
            io.copyLarge(source, output)
    fs, path = _open(spark, target)
    return FileStatus(target, int(fs.getFileStatus(path).getLen()))


def unpack(spark: SparkSession, uri: str, folder: str) -> list[tuple[str, FileStatus]]:
    """Unpack a zip archive into `folder`. Return (name in the archive, copy) of each file.

    Raises Py4JJavaError where the archive is damaged, truncated or encrypted.
    """
    found: list[tuple[str, FileStatus]] = []
    with _opened(spark, uri) as stream:
        archive = java_class(spark, "java.util.zip.ZipInputStream")(stream)
        while (entry := archive.getNextEntry()) is not None:
            if entry.isDirectory():
                continue
            target = f"{folder}/{len(found)}"
            with _created(spark, target) as output:
                number = java_class(spark, "org.apache.commons.io.IOUtils").copyLarge(archive, output)
            found.append((str(entry.getName()), FileStatus(target, int(number))))
    return found


def has_charset(spark: SparkSession, name: str) -> bool:
    """Return whether Java has an encoding of this name."""
    try:
        return bool(java_class(spark, "java.nio.charset.Charset").isSupported(name))
    except Py4JJavaError:
        return False


def _decompressed(spark: SparkSession, stream: Any, compression: str) -> Any:
    if compression == "gzip":
        return java_class(spark, "java.util.zip.GZIPInputStream")(stream)
    if compression == "bzip2":
        name = "org.apache.commons.compress.compressors.bzip2.BZip2CompressorInputStream"
        return java_class(spark, name)(stream, True)
    return stream


def _all_bytes(spark: SparkSession, stream: Any) -> bytes:
    return bytes(java_class(spark, "org.apache.commons.io.IOUtils").toByteArray(stream))


@contextmanager
def _opened(spark: SparkSession, uri: str) -> Iterator[Any]:
    """Yield Java's stream of a file's bytes."""
    fs, path = _open(spark, uri)
    stream = fs.open(path)
    try:
        yield stream
    finally:
        stream.close()


@contextmanager
def _created(spark: SparkSession, uri: str) -> Iterator[Any]:
    """Yield Java's stream into a new file."""
    fs, path = _open(spark, uri)
    stream = fs.create(path, True)
    try:
        yield stream
    finally:
        stream.close()

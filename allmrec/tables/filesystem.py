"""Files and folders of any file system Hadoop knows (local, HDFS, object stores), through Spark's JVM. URIs without a scheme are local."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from allmrec.errors import InputError
from allmrec.tables.session import jvm


def exists(spark: SparkSession, uri: str) -> bool:
    """Return whether there is a file or folder at `uri`."""
    fs, path = _open(spark, uri)
    return bool(fs.exists(path))


def absolute(spark: SparkSession, uri: str) -> str:
    """Return `uri` as it is, but a relative path as an absolute one: Delta takes no relative paths."""
    path = _path(spark, uri)
    return uri if path.isAbsolute() else str(_open(spark, uri)[0].makeQualified(path).toUri().getPath())


def list_names(spark: SparkSession, uri: str) -> list[str]:
    """Return the sorted names of the files and folders in the folder `uri`; empty where it does not exist."""
    fs, path = _open(spark, uri)
    if not fs.exists(path):
        return []
    return sorted(status.getPath().getName() for status in fs.listStatus(path))


def list_folders(spark: SparkSession, uri: str) -> list[str]:
    """Return the sorted names of the folders in the folder `uri`; empty where it does not exist."""
    fs, path = _open(spark, uri)
    if not fs.exists(path):
        return []
    return sorted(status.getPath().getName() for status in fs.listStatus(path) if status.isDirectory())


def read_text(spark: SparkSession, uri: str) -> str:
    """Return the file at `uri` as UTF-8 text (small files: it is read whole on the driver)."""
    fs, path = _open(spark, uri)
    if not fs.exists(path):
        raise InputError(f"{uri}: no such file")
    stream = fs.open(path)
    try:
        return bytes(jvm(spark).org.apache.commons.io.IOUtils.toByteArray(stream)).decode("utf-8")
    finally:
        stream.close()


def write_text(spark: SparkSession, text: str, uri: str) -> None:
    """Write `text` as UTF-8 to the file `uri`, replacing it."""
    fs, path = _open(spark, uri)
    stream = fs.create(path, True)
    try:
        stream.write(bytearray(text.encode("utf-8")))
    finally:
        stream.close()


def upload(spark: SparkSession, local: Path, uri: str) -> None:
    """Copy the local file or folder to `uri`, replacing what is there; nobody sees it half-copied (temporary name, then rename)."""
    if not local.exists():
        raise InputError(f"{local}: no such file or folder to upload")
    fs, path = _open(spark, uri)
    fresh = _path(spark, f"{uri.rstrip('/')}.{uuid.uuid4().hex}.tmp")
    old = _path(spark, f"{uri.rstrip('/')}.{uuid.uuid4().hex}.old")
    fs.mkdirs(path.getParent())
    fs.copyFromLocalFile(False, True, _path(spark, local.resolve().as_uri()), fresh)
    replaced = fs.exists(path)
    if replaced:
        fs.rename(path, old)
    if not fs.rename(fresh, path):
        raise InputError(
            f"{uri}: could not be written: renaming the uploaded copy {fresh} failed; check rights and space there"
        )
    if replaced:
        fs.delete(old, True)


def download(spark: SparkSession, uri: str, local: Path) -> Path:
    """Copy the file or folder at `uri` to the local path `local` (which must not exist yet) and return it."""
    fs, path = _open(spark, uri)
    if not fs.exists(path):
        raise InputError(f"{uri}: no such file or folder")
    if local.exists():
        raise InputError(f"{local}: is there already, expected a path that is free; remove it")
    local.parent.mkdir(parents=True, exist_ok=True)
    fresh = local.parent / f"{local.name}.{uuid.uuid4().hex}.tmp"
    fs.copyToLocalFile(False, path, _path(spark, fresh.resolve().as_uri()), True)
    fresh.rename(local)
    return local


def delete(spark: SparkSession, uri: str) -> None:
    """Delete the file or folder at `uri`; nothing happens where there is none."""
    fs, path = _open(spark, uri)
    fs.delete(path, True)


def _path(spark: SparkSession, uri: str) -> Any:
    return jvm(spark).org.apache.hadoop.fs.Path(uri)


def _open(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    path = _path(spark, uri)
    fs = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    if fs.getUri().getScheme() == "file":
        # The raw one leaves no .crc files beside what it writes.
        fs = fs.getRawFileSystem()
    return fs, path

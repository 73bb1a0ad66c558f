"""Files and folders of any file system that Hadoop knows (local, HDFS, object stores), through Spark's JVM.

URIs without a scheme are local. Where the file system itself fails (rights, space, network), Py4JJavaError is
raised.
"""

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
    return sorted(status.getPath().getName() for status in _listed(spark, uri))


def list_folders(spark: SparkSession, uri: str) -> list[str]:
    """Return the sorted names of the folders in the folder `uri`; empty where it does not exist."""
    return sorted(status.getPath().getName() for status in _listed(spark, uri) if status.isDirectory())


def read_text(spark: SparkSession, uri: str) -> str:
    """Return the file at `uri` as UTF-8 text (small files: it is read whole on the driver).

    Raises InputError where there is none.
    """
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
    """Copy the local file or folder to `uri`, replacing what is there.

    Nobody sees it half-copied: it gets its name when it is whole. Raises InputError where `local` does not
    exist, or where the copy cannot get its name.
    """
    if not local.exists():
        raise InputError(f"{local}: no such file or folder to upload")
    fs, path = _open(spark, uri)
    partial = _path(spark, f"{uri.rstrip('/')}.{uuid.uuid4().hex}.tmp")
    old = _path(spark, f"{uri.rstrip('/')}.{uuid.uuid4().hex}.old")
    fs.mkdirs(path.getParent())
    fs.copyFromLocalFile(False, True, _path(spark, local.resolve().as_uri()), partial)
    replaces = fs.exists(path)
    if replaces:
        fs.rename(path, old)
    if not fs.rename(partial, path):
        raise InputError(
            f"{uri}: could not be written: renaming the uploaded copy {partial} failed; "
            "check rights and space there"
        )
    if replaces:
        fs.delete(old, True)


def download(spark: SparkSession, uri: str, local: Path) -> Path:
    """Copy the file or folder at `uri` to the local path `local` and return it.

    Raises InputError where there is nothing at `uri`, or already something at `local`.
    """
    fs, path = _open(spark, uri)
    if not fs.exists(path):
        raise InputError(f"{uri}: no such file or folder")
    if local.exists():
        raise InputError(f"{local}: is there already, expected a path that is free; remove it")
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.parent / f"{local.name}.{uuid.uuid4().hex}.tmp"
    fs.copyToLocalFile(False, path, _path(spark, partial.resolve().as_uri()), True)
    partial.rename(local)
    return local


def delete(spark: SparkSession, uri: str) -> None:
    """Delete the file or folder at `uri`; nothing happens where there is none."""
    fs, path = _open(spark, uri)
    fs.delete(path, True)


def _path(spark: SparkSession, uri: str) -> Any:
    """Return Hadoop's Path of `uri`."""
    return jvm(spark).org.apache.hadoop.fs.Path(uri)


def _open(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """Return Hadoop's FileSystem on which `uri` lies, and its Path there."""
    path = _path(spark, uri)
    fs = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    if fs.getUri().getScheme() == "file":
        # The raw one leaves no .crc files beside what it writes.
        fs = fs.getRawFileSystem()
    return fs, path


def _listed(spark: SparkSession, uri: str) -> list[Any]:
    """Return Hadoop's FileStatus of everything in the folder `uri`; empty where it does not exist."""
    fs, path = _open(spark, uri)
    return list(fs.listStatus(path)) if fs.exists(path) else []

"""Files and folders of any file system of Hadoop.

URIs without a scheme are local. All functions raise Py4JJavaError where the file system fails (rights, space,
network).
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from allmrec.errors import InputError
from allmrec.spark.session import java_class


def exists(spark: SparkSession, uri: str) -> bool:
    """Return whether a file or folder exists at `uri`."""
    fs, path = _open(spark, uri)
    return bool(fs.exists(path))


def absolute(spark: SparkSession, uri: str) -> str:
    """Return `uri`; a relative path is made absolute, because Delta requires that."""
    path = _path(spark, uri)
    return uri if path.isAbsolute() else str(_open(spark, uri)[0].makeQualified(path).toUri().getPath())


def list_names(spark: SparkSession, uri: str) -> list[str]:
    """Return the sorted names in the folder `uri`. Empty if it does not exist."""
    return sorted(status.getPath().getName() for status in _listed(*_open(spark, uri)))


def list_folders(spark: SparkSession, uri: str) -> list[str]:
    """Return the sorted names of the folders in `uri`. Empty if it does not exist."""
    folders = (status for status in _listed(*_open(spark, uri)) if status.isDirectory())
    return sorted(folder.getPath().getName() for folder in folders)


def file_lengths(spark: SparkSession, uris: list[str]) -> list[int]:
    """Return the lengths of the URIs that are files, in bytes."""
    statuses = (fs.getFileStatus(path) for fs, path in (_open(spark, uri) for uri in uris))
    return [status.getLen() for status in statuses if status.isFile()]


def folder_bytes(spark: SparkSession, uri: str) -> int:
    """Return the bytes of all files below the folder `uri`. 0 if it does not exist."""
    fs, path = _open(spark, uri)
    return int(fs.getContentSummary(path).getLength()) if fs.exists(path) else 0


def read_text(spark: SparkSession, uri: str) -> str:
    """Return the file at `uri` as UTF-8 text.

    The driver reads it whole, so that it must be small. Raises InputError where the file does not exist.
    """
    fs, path = _open(spark, uri)
    if not fs.exists(path):
        raise InputError(f"{uri}: no such file")
    stream = fs.open(path)
    try:
        return bytes(java_class(spark, "org.apache.commons.io.IOUtils").toByteArray(stream)).decode("utf-8")
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


def publish_folder(spark: SparkSession, local: Path, uri: str, last: str) -> None:
    """Make the folder at `uri` equal to the local one, `last` last.

    A reader that finds `last` finds all files. Files are compared by name and length: files of one name and
    length must have one content. Files that `local` lacks are deleted, and existing files are not written
    again. Several processes may call it at once, and again after a crash. Raises InputError where `local /
    last` does not exist, or a file cannot be renamed to its name.
    """
    if not (local / last).is_file():
        raise InputError(f"{local / last}: no such file to publish")
    fs, path = _open(spark, uri)
    wanted = _lengths(*_open(spark, _local_uri(local)))
    found = _lengths(fs, path)
    for name, length in found.items():
        if name not in wanted or (length is None) != (wanted[name] is None):
            fs.delete(_path(spark, f"{uri}/{name}"), True)
    for name in sorted(wanted, key=lambda name: (name == last, name)):
        if wanted[name] is None:
            fs.mkdirs(_path(spark, f"{uri}/{name}"))
        elif found.get(name) != wanted[name]:
            _put_file(spark, local / name, f"{uri}/{name}")


def download(spark: SparkSession, uri: str, local: Path) -> Path:
    """Copy the folder at `uri` to the path `local`; return it.

    The copy gets its name once it is complete. An existing folder at `local`, also of another process, is
    returned as it is. Raises InputError where `uri` is no folder, or `local` is a file.
    """
    fs, path = _open(spark, uri)
    if not (fs.exists(path) and fs.getFileStatus(path).isDirectory()):
        raise InputError(f"{uri}: no such folder")
    if local.is_dir():
        return local
    if local.exists():
        raise InputError(f"{local}: is a file, expected a path that is free; remove it")
    partial = local.parent / f".{local.name}.{uuid.uuid4().hex}.tmp"
    try:
        partial.mkdir(parents=True)
        for name, length in _lengths(fs, path).items():
            if length is None:
                (partial / name).mkdir()
            else:
                target = _path(spark, _local_uri(partial / name))
                fs.copyToLocalFile(False, _path(spark, f"{uri}/{name}"), target, True)
        try:
            partial.rename(local)
        except OSError:
            if not local.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return local


def rename_new(spark: SparkSession, source: str, target: str) -> None:
    """Rename the folder `source` to `target`; if that exists, delete `source`.

    A folder `target` without a manifest.json was left by a killed run and is replaced.
    """
    fs, path = _open(spark, target)
    if fs.exists(path) and not exists(spark, f"{target}/manifest.json"):
        fs.delete(path, True)
    if fs.exists(path) or not fs.rename(_path(spark, source), path):
        fs.delete(_path(spark, source), True)


def delete(spark: SparkSession, uri: str) -> None:
    """Delete the file or folder at `uri`, if it exists."""
    fs, path = _open(spark, uri)
    fs.delete(path, True)


def delete_names(spark: SparkSession, folder: str, names: list[str]) -> None:
    """Delete files and folders in `folder`, and `folder` if it is empty."""
    fs, path = _open(spark, folder)
    for name in names:
        fs.delete(_path(spark, f"{folder}/{name}"), True)
    if not _listed(fs, path):
        # Not recursive, so that files that appear meanwhile are kept.
        fs.delete(path, False)


def _path(spark: SparkSession, uri: str) -> Any:
    """Return Hadoop's Path of `uri`."""
    return java_class(spark, "org.apache.hadoop.fs.Path")(uri)


def _open(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """Return Hadoop's FileSystem of `uri`, and its Path there."""
    path = _path(spark, uri)
    fs = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    if fs.getUri().getScheme() == "file":
        # The raw file system writes no .crc files.
        fs = fs.getRawFileSystem()
    return fs, path


def _local_uri(local: Path) -> str:
    """Return the unescaped URI of a local path. Hadoop's Path decodes no %20."""
    return f"file://{local.resolve()}"


def _listed(fs: Any, path: Any) -> list[Any]:
    """Return Hadoop's FileStatus of everything in a folder. Empty if it does not exist."""
    try:
        return list(fs.listStatus(path))
    except Py4JJavaError as error:  # no check beforehand: another process may make or delete it meanwhile
        # A local folder that is deleted during the call raises "Invalid directory or I/O error" instead.
        if "FileNotFoundException" in str(error) or not fs.exists(path):
            return []
        raise


def _lengths(fs: Any, path: Any, prefix: str = "") -> dict[str, int | None]:
    """Return relative path → bytes of a folder's content; None for folders.

    A folder precedes its content. Names that begin with "." are skipped: temporary files of writers, Hadoop's
    checksums.
    """
    lengths: dict[str, int | None] = {}
    for status in _listed(fs, path):
        name = status.getPath().getName()
        if name.startswith("."):
            continue
        lengths[prefix + name] = None if status.isDirectory() else status.getLen()
        if status.isDirectory():
            lengths |= _lengths(fs, status.getPath(), f"{prefix}{name}/")
    return lengths


def _put_file(spark: SparkSession, local: Path, uri: str) -> None:
    """Copy a local file to `uri`, where it appears complete.

    A file of the same length that appears first is kept. Raises InputError where the copy cannot be renamed.
    """
    fs, path = _open(spark, uri)
    folder, name = uri.rsplit("/", 1)
    num_bytes = local.stat().st_size
    partial = _path(spark, f"{folder}/.{name}.{uuid.uuid4().hex}.tmp")
    try:
        fs.copyFromLocalFile(False, True, _path(spark, _local_uri(local)), partial)
        if _renamed(fs, partial, path) or _has_length(fs, path, num_bytes):
            return
        fs.delete(path, False)
        if not (_renamed(fs, partial, path) or _has_length(fs, path, num_bytes)):
            raise InputError(
                f"{uri}: could not be written: renaming the uploaded copy {partial} failed; "
                "check rights and space there"
            )
    finally:
        fs.delete(partial, False)


def _renamed(fs: Any, source: Any, target: Any) -> bool:
    """Rename a file and return whether it worked.

    If the name is taken, some file systems replace the file, some return false, and some raise.
    """
    try:
        return bool(fs.rename(source, target))
    except Py4JJavaError as error:
        if "FileAlreadyExistsException" not in str(error):
            raise
        return False


def _has_length(fs: Any, path: Any, num_bytes: int) -> bool:
    """Return whether `path` is a file of that length. A file's listing is the file."""
    return [status.getLen() for status in _listed(fs, path)] == [num_bytes]

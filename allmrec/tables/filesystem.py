"""Files and folders of any file system that Hadoop knows (local, HDFS, object stores), through Spark's JVM.

URIs without a scheme are local. Where the file system itself fails (rights, space, network), Py4JJavaError is
raised.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from allmrec.errors import InputError
from allmrec.tables.session import java_class


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
    return sorted(status.getPath().getName() for status in _listed(*_open(spark, uri)))


def list_folders(spark: SparkSession, uri: str) -> list[str]:
    """Return the sorted names of the folders in the folder `uri`; empty where it does not exist."""
    folders = (status for status in _listed(*_open(spark, uri)) if status.isDirectory())
    return sorted(folder.getPath().getName() for folder in folders)


def file_lengths(spark: SparkSession, uris: list[str]) -> list[int]:
    """Return the bytes of those of the URIs that are files."""
    statuses = (fs.getFileStatus(path) for fs, path in (_open(spark, uri) for uri in uris))
    return [status.getLen() for status in statuses if status.isFile()]


def folder_bytes(spark: SparkSession, uri: str) -> int:
    """Return the bytes of all files below the folder `uri`; 0 where it does not exist."""
    fs, path = _open(spark, uri)
    return int(fs.getContentSummary(path).getLength()) if fs.exists(path) else 0


def read_text(spark: SparkSession, uri: str) -> str:
    """Return the file at `uri` as UTF-8 text (small files: it is read whole on the driver).

    Raises InputError where there is none.
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
    """Make the folder at `uri` equal to the local one, file by file, and the file `last` after all others.

    So whoever finds `last` finds the rest. Names and lengths are compared: files of one name and length must
    have one content. What `local` lacks is removed, what is there already is not written again; so it may be
    called again after a crash, and by several at once. Raises InputError where there is no `local / last`, or
    a file cannot get its name.
    """
    if not (local / last).is_file():
        raise InputError(f"{local / last}: no such file to publish")
    fs, path = _open(spark, uri)
    wanted, found = _lengths(*_open(spark, _local_uri(local))), _lengths(fs, path)
    for name, length in found.items():
        if name not in wanted or (length is None) != (wanted[name] is None):
            fs.delete(_path(spark, f"{uri}/{name}"), True)
    for name in sorted(wanted, key=lambda name: (name == last, name)):
        if wanted[name] is None:
            fs.mkdirs(_path(spark, f"{uri}/{name}"))
        elif found.get(name) != wanted[name]:
            _put_file(spark, local / name, f"{uri}/{name}")


def download(spark: SparkSession, uri: str, local: Path) -> Path:
    """Copy the folder at `uri` to the local path `local` and return it.

    It gets its name when it is whole. A folder that is at `local` already, or that another process puts there
    meanwhile, is taken as it is. Raises InputError where there is no folder at `uri`, or a file at `local`.
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
    """Give the folder `source` the name `target`; where that is taken meanwhile, `source` is deleted.

    A folder of the name `target` that holds no manifest.json is the rest of a killed run and makes way.
    """
    fs, path = _open(spark, target)
    if fs.exists(path) and not exists(spark, f"{target}/manifest.json"):
        fs.delete(path, True)
    if fs.exists(path) or not fs.rename(_path(spark, source), path):
        fs.delete(_path(spark, source), True)


def delete(spark: SparkSession, uri: str) -> None:
    """Delete the file or folder at `uri`; nothing happens where there is none."""
    fs, path = _open(spark, uri)
    fs.delete(path, True)


def delete_names(spark: SparkSession, folder: str, names: list[str]) -> None:
    """Delete these files and folders in `folder`, and `folder` itself where nothing else is in it then."""
    fs, path = _open(spark, folder)
    for name in names:
        fs.delete(_path(spark, f"{folder}/{name}"), True)
    if not _listed(fs, path):
        # Not recursively: what comes in between stays.
        fs.delete(path, False)


def _path(spark: SparkSession, uri: str) -> Any:
    """Return Hadoop's Path of `uri`."""
    return java_class(spark, "org.apache.hadoop.fs.Path")(uri)


def _open(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    """Return Hadoop's FileSystem on which `uri` lies, and its Path there."""
    path = _path(spark, uri)
    fs = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    if fs.getUri().getScheme() == "file":
        # The raw one leaves no .crc files beside what it writes.
        fs = fs.getRawFileSystem()
    return fs, path


def _local_uri(local: Path) -> str:
    """Return the URI of a local path, nothing escaped: Hadoop's Path takes %20 for three letters."""
    return f"file://{local.resolve()}"


def _listed(fs: Any, path: Any) -> list[Any]:
    """Return Hadoop's FileStatus of everything in a folder; empty where it does not exist."""
    try:
        return list(fs.listStatus(path))
    except Py4JJavaError as error:  # not asked before: another process may make or delete it meanwhile
        # A local folder that is deleted during the call is "Invalid directory or I/O error", no missing file.
        if "FileNotFoundException" in str(error) or not fs.exists(path):
            return []
        raise


def _lengths(fs: Any, path: Any, prefix: str = "") -> dict[str, int | None]:
    """Return relative path → bytes of all that is in a folder; None is a folder, and precedes its content.

    Names that begin with "." are passed over: temporary files of whoever is writing, Hadoop's checksums.
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
    """Copy a local file to `uri`, where it appears whole; one of the same length may come first.

    Raises InputError where the copy cannot get its name.
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

    Where the name is taken, some file systems replace the file, some return false, some raise.
    """
    try:
        return bool(fs.rename(source, target))
    except Py4JJavaError as error:
        if "FileAlreadyExistsException" not in str(error):
            raise
        return False


def _has_length(fs: Any, path: Any, num_bytes: int) -> bool:
    """Return whether there is a file at `path`, as long as that; a listing of a file is the file itself."""
    return [status.getLen() for status in _listed(fs, path)] == [num_bytes]

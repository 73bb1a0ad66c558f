"""Bundles on the machines of Spark's workers; imports no torch.

A bundle is sent as one uncompressed zip file by `SparkContext.addFile`, because Spark sends no folders to
executors, and is unpacked once per machine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from pyspark import SparkContext, SparkFiles


def ship(context: SparkContext, folder: Path, bundle_id: str) -> None:
    """Send a bundle to every executor, once per session."""
    path = Path(_shipping_folder().name) / f"{bundle_id}.zip"
    if any(Path(shipped).name == path.name for shipped in context.listFiles):
        return
    # Weights do not compress. Files of an image may have dates of 1970, which zip cannot store.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path(bundle_id) / file.relative_to(folder))
    context.addFile(str(path))


def shipped_folder(bundle_id: str) -> Path:
    """Return the folder of a shipped bundle on this machine."""
    path = Path(SparkFiles.get(f"{bundle_id}.zip"))
    folder = path.with_name(f"{bundle_id}.bundle") / bundle_id
    if not folder.is_dir():
        scratch = Path(tempfile.mkdtemp(dir=path.parent))
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch)
        try:
            os.rename(scratch, folder.parent)
        except OSError:  # another worker of this machine was first
            shutil.rmtree(scratch)
    return folder


@cache
def _shipping_folder() -> tempfile.TemporaryDirectory[str]:
    """Return this process's folder of shipped files, deleted at exit.

    It stays until then, because executors fetch a file when they first need it.
    """
    return tempfile.TemporaryDirectory(prefix="allmrec-")

"""A shipped bundle arrives whole, is unpacked once per machine, and by whatever worker is first. No JVM."""

from __future__ import annotations

import gc
import os
import shutil
import tarfile
import weakref
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from pyspark import SparkContext, SparkFiles

from allmrec.config import Config
from allmrec.runtime import workers
from allmrec.runtime.shipping import shipped_folder
from allmrec.runtime.workers import WorkerModel

BUNDLE_ID = "b" * 16


class FakeContext:
    """Copies added files into one folder, as Spark does on an executor's machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listFiles: list[str] = []

    def addFile(self, path: str) -> None:
        shutil.copy(path, self.folder)
        self.listFiles.append(f"spark://driver:7078/files/{Path(path).name}")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContext:
    received = tmp_path / "received"
    received.mkdir()
    monkeypatch.setattr(SparkFiles, "get", lambda name: str(received / name))
    return FakeContext(received)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with files of every kind that a bundle has, one of them as old as images make files."""
    folder = tmp_path / "bundle"
    (folder / "text_encoder").mkdir(parents=True)
    (folder / "cf.safetensors").write_bytes(bytes(range(256)) * 1000)
    (folder / "manifest.json").write_text("{}")
    (folder / "text_encoder" / "vocabulary.txt").write_text("ü\n")
    os.utime(folder / "manifest.json", (0, 0))
    return folder


def ship(context: FakeContext, bundle: Path) -> WorkerModel:
    return WorkerModel.ship(cast(SparkContext, context), bundle, BUNDLE_ID, Config())


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refuse(*arguments: Any, **options: Any) -> NoReturn:
    raise TypeError("extractall() got an unexpected keyword argument 'filter'")


def test_a_bundle_arrives_as_it_was_also_where_tarfile_knows_no_filter(
    context: FakeContext, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile.TarFile, "extractall", refuse)  # as before Python 3.10.12
    folder = shipped_folder(ship(context, bundle).bundle_id)
    assert folder.name == BUNDLE_ID
    assert contents(folder) == contents(bundle)


def test_a_bundle_is_sent_once_per_session(context: FakeContext, bundle: Path) -> None:
    assert ship(context, bundle) == ship(context, bundle)
    assert len(context.listFiles) == 1


def test_a_bundle_is_unpacked_once_per_machine(context: FakeContext, bundle: Path) -> None:
    model = ship(context, bundle)
    first = shipped_folder(model.bundle_id)
    (first / "mark").touch()
    assert shipped_folder(model.bundle_id) == first
    assert (first / "mark").exists()


def test_a_worker_that_is_second_takes_what_the_first_unpacked(
    context: FakeContext, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ship(context, bundle)
    rename = os.rename

    def rename_late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        (shipped_folder(model.bundle_id) / "mark").touch()
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_late)
    folder = shipped_folder(model.bundle_id)
    assert (folder / "mark").exists()
    left = [path for path in context.folder.iterdir() if path.is_dir()]
    assert left == [folder.parent]


class Model:
    """Points to itself, as models may."""

    def __init__(self) -> None:
        self.itself = self


def test_what_a_worker_keeps_is_not_looked_at_by_every_collection_and_is_let_go_for_another_bundle() -> None:
    def load(bundle_id: str) -> Model:
        return workers._once("a test's model", bundle_id, None, Model)

    try:
        first = weakref.ref(load("one"))
        assert gc.get_freeze_count() > 0
        assert all(first() is not known for known in gc.get_objects())
        assert load("one") is first()
        load("two")
        assert first() is None
    finally:
        gc.unfreeze()
        for key in [key for key in workers._LOADED if key[0] == "a test's model"]:
            del workers._LOADED[key]

"""Bundles at `tables.root`: whole or not there, whoever stores at once, crashes midway, or left damage."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from allmrec.bundle import AlignmentState, changed_items, load_bundle, save_bundle, verify_bundle
from allmrec.bundle.folder import MANIFEST
from allmrec.config import BundleConfig, load
from allmrec.errors import BundleError, InputError
from allmrec.reporting import Report
from allmrec.runtime import bundle_store
from allmrec.runtime.bundle_store import fetch_bundle, manifests, store_bundle
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Night
from allmrec.spark import filesystem
from allmrec.spark.session import java_class
from allmrec.steps.candidates import available_items
from allmrec.tables.schemas import TABLES
from tests.unit.tiny_bundle import tiny_bundle, tiny_catalogue

ROUNDS = 20


class RefusingFileSystem:
    """The local file system, but a name that is taken is refused to a rename, as HDFS and object stores do.

    HDFS says so by False, some object stores by an exception.
    """

    def __init__(self, local: Any, by_exception: bool) -> None:
        self.local, self.by_exception = local, by_exception

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)

    def rename(self, source: Any, target: Any) -> bool:
        if not self.local.exists(target):
            return bool(self.local.rename(source, target))
        if self.by_exception:
            # Raises FileAlreadyExistsException. Of the target it might not: another thread may delete it now.
            self.local.create(source, False)
        return False


class VanishingFileSystem:
    """The local file system, but the folder of one name is deleted while it is listed."""

    def __init__(self, spark: SparkSession, local: Any, vanishes: str) -> None:
        self.spark, self.local, self.vanishes = spark, local, vanishes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)

    def listStatus(self, path: Any) -> Any:
        if path.getName() != self.vanishes:
            return self.local.listStatus(path)
        self.local.delete(path, True)
        folder = java_class(self.spark, "java.io.File")(path.toUri().getPath())
        return java_class(self.spark, "org.apache.hadoop.fs.FileUtil").list(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The local folder of a whole bundle, with a folder inside, as a fine-tuned text encoder has one."""
    folder = tmp_path_factory.mktemp("bundle")
    tiny = tiny_bundle(folder)
    tiny = tiny.with_state(replace(tiny.state(AlignmentState), encoder_folder=folder / "encoder"))
    (folder / "encoder" / "1_Pooling").mkdir(parents=True)
    (folder / "encoder" / "1_Pooling" / "config.json").write_text("{}")
    return folder / "saved" / save_bundle(folder / "saved", tiny, {"purpose": "serving"})


@pytest.fixture
def context(spark: SparkSession, tmp_path: Path) -> Context:
    """A run on an empty `tables.root`; its path has letters that a URI would escape."""
    return context_at(spark, str(tmp_path / "tables of größe"), tmp_path / "cache of größe")


def context_at(spark: SparkSession, root: str, cache: Path) -> Context:
    return Context.open(spark, load([], [f"tables.root={root}", f"cache.folder={cache}"]), Report())


def remote_context(spark: SparkSession, tmp_path: Path) -> Context:
    """A run on a `tables.root` that is no folder of this machine; it lies in `tmp_path / "remote"`."""
    name = f"shop{uuid.uuid4().hex}"
    (tmp_path / "remote").mkdir()
    link = f"fs.viewfs.mounttable.{name}.link./tables"
    spark.sparkContext._jsc.hadoopConfiguration().set(link, f"file://{tmp_path}/remote")
    return context_at(spark, f"viewfs://{name}/tables", tmp_path / "cache")


def refuse_renames(monkeypatch: pytest.MonkeyPatch, by_exception: bool) -> None:
    """Let every local path lie on a `RefusingFileSystem`."""
    opened = filesystem._open

    def refusing(spark: SparkSession, uri: str) -> tuple[Any, Any]:
        fs, path = opened(spark, uri)
        return RefusingFileSystem(fs, by_exception), path

    monkeypatch.setattr(filesystem, "_open", refusing)


def at_root(context: Context, bundle_id: str) -> Path:
    return Path(context.config.tables.root) / "_bundles" / bundle_id


def at_once(*calls: Callable[[], object]) -> None:
    """Run the calls in threads that begin together; raises what the first of them raised."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        call()

    with ThreadPoolExecutor(len(calls)) as threads:
        for done in [threads.submit(run, call) for call in calls]:
            done.result()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def catalogue_of(context: Context, items: pd.DataFrame) -> Inputs:
    """Make the items the catalogue; some of them cannot be had."""
    values = items[["item_id", "title", "description"]].assign(
        categories=None, available=[number % 3 != 0 for number in range(len(items))], updated_at=None
    )
    frame = context.spark.createDataFrame(values.to_numpy().tolist(), TABLES["items"].schema)
    context.tables.merge("items", frame)
    return Inputs(context, {"items": context.tables.version("items")}, {})


def test_what_changed_since_training_is_found_without_loading_the_bundle(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_bundle(context, bundle, bundle.name)
    items = tiny_catalogue().drop(index=6)
    items.loc[3, "title"] = "größeres “Zelt” \\ 2"
    items.loc[5, "description"] = None
    new = pd.DataFrame({"item_id": ["z", "a"], "title": ["lamp", "a 𝄞 clef"], "description": ["", "new"]})
    tonight = pd.concat([items, new], ignore_index=True)
    expected = changed_items(load_bundle(bundle, None), tonight)
    assert len(expected) >= 3
    monkeypatch.setattr(bundle_store, "load_bundle", None)
    (manifest,) = manifests(context)
    found = bundle_store.changed_since_training(catalogue_of(context, tonight), manifest)
    columns = ["item_id", "title", "text_hash"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])


def test_available_are_the_bundles_items_that_the_catalogue_has_and_says_so(
    context: Context, bundle: Path
) -> None:
    store_bundle(context, bundle, bundle.name)
    inputs = catalogue_of(context, tiny_catalogue().drop(index=4))
    available = available_items(inputs, manifests(context)[0])
    expected = [f"i{number + 1:03d}" for number in range(30) if number != 4]
    expected = [item for place, item in enumerate(expected) if place % 3]
    index = load_bundle(bundle, None).index
    assert np.flatnonzero(available).tolist() == sorted(index[item] for item in expected)


def test_a_catalogue_that_shares_less_than_half_with_the_bundle_is_refused(
    context: Context, bundle: Path
) -> None:
    store_bundle(context, bundle, bundle.name)
    inputs = catalogue_of(context, tiny_catalogue().head(14))
    with pytest.raises(BundleError, match="14 of its 30 items are among the catalogue's 14"):
        bundle_store.changed_since_training(inputs, manifests(context)[0])


@pytest.mark.parametrize("renames", ["overwrite", "return False", "raise"])
def test_two_stores_at_once_leave_a_bundle_that_verifies(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch, renames: str
) -> None:
    if renames != "overwrite":
        refuse_renames(monkeypatch, by_exception=renames == "raise")
    for number in range(ROUNDS):
        stored = at_root(context, f"b{number}")
        at_once(*[lambda name=stored.name: store_bundle(context, bundle, name)] * 2)
        assert verify_bundle(stored).bundle_id == bundle.name
        assert files(stored) == files(bundle)


@pytest.mark.parametrize("renames", ["overwrite", "return False", "raise"])
def test_two_stores_at_once_of_a_damaged_bundle_both_repair_it(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch, renames: str
) -> None:
    if renames != "overwrite":
        refuse_renames(monkeypatch, by_exception=renames == "raise")
    for number in range(ROUNDS):
        stored = at_root(context, f"b{number}")
        shutil.copytree(bundle, stored)
        shutil.copytree(bundle, stored / f"{bundle.name}.{uuid.uuid4().hex}.tmp")
        (stored / "cf.safetensors").write_bytes(b"cut")
        (stored / "items.parquet").unlink()
        at_once(*[lambda name=stored.name: store_bundle(context, bundle, name)] * 2)
        verify_bundle(stored)
        assert files(stored) == files(bundle)


def test_a_folder_that_another_run_deletes_while_it_is_listed_is_no_error(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = at_root(context, "damaged")
    shutil.copytree(bundle, stored)
    shutil.copytree(bundle / "text_encoder", stored / "left.tmp")
    opened = filesystem._open

    def vanishing(spark: SparkSession, uri: str) -> tuple[Any, Any]:
        fs, path = opened(spark, uri)
        return VanishingFileSystem(spark, fs, "left.tmp"), path

    monkeypatch.setattr(filesystem, "_open", vanishing)
    store_bundle(context, bundle, stored.name)
    assert files(stored) == files(bundle)


def test_a_folder_that_two_runs_of_0_1_0_nested_is_repaired(context: Context, bundle: Path) -> None:
    stored = at_root(context, bundle.name)
    shutil.copytree(bundle, stored)
    shutil.copytree(bundle, stored / f"{bundle.name}.{uuid.uuid4().hex}.tmp")
    with pytest.raises(BundleError, match="not one of its files"):
        verify_bundle(stored)
    store_bundle(context, bundle, bundle.name)
    verify_bundle(stored)
    assert files(stored) == files(bundle)


@pytest.mark.parametrize("renames", ["overwrite", "return False", "raise"])
def test_what_has_another_length_or_kind_is_replaced(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch, renames: str
) -> None:
    if renames != "overwrite":
        refuse_renames(monkeypatch, by_exception=renames == "raise")
    stored = at_root(context, bundle.name)
    shutil.copytree(bundle, stored)
    (stored / "cf.safetensors").write_bytes(b"cut off")
    (stored / "manifest.json").write_text("{")
    (stored / "blend.json").unlink()
    (stored / "blend.json").mkdir()
    shutil.rmtree(stored / "text_encoder")
    (stored / "text_encoder").write_text("a file")
    store_bundle(context, bundle, bundle.name)
    verify_bundle(stored)
    assert files(stored) == files(bundle)


@pytest.mark.parametrize("num_files", [0, 1, 5])
def test_a_crash_midway_leaves_no_bundle_and_the_next_store_completes_it(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch, num_files: int
) -> None:
    put_file, num_put = filesystem._put_file, 0

    def crashing(*arguments: Any) -> None:
        nonlocal num_put
        if num_put == num_files:
            raise KeyboardInterrupt
        num_put += 1
        put_file(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "_put_file", crashing)
        with pytest.raises(KeyboardInterrupt):
            store_bundle(context, bundle, bundle.name)
    assert manifests(context) == []
    with pytest.raises(BundleError, match="no such bundle"):
        fetch_bundle(context, bundle.name)
    store_bundle(context, bundle, bundle.name)
    assert [manifest.bundle_id for manifest in manifests(context)] == [bundle.name]
    verify_bundle(fetch_bundle(context, bundle.name))


def test_an_upload_that_fails_leaves_no_temporary_file(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fs: Any, source: Any, target: Any) -> bool:
        raise OSError("no space left")

    monkeypatch.setattr(RefusingFileSystem, "rename", failing)
    refuse_renames(monkeypatch, by_exception=False)
    with pytest.raises(OSError, match="no space left"):
        store_bundle(context, bundle, bundle.name)
    assert [path for path in at_root(context, bundle.name).rglob("*") if path.is_file()] == []


def test_a_rename_that_never_works_is_one_clear_line(
    context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RefusingFileSystem, "rename", lambda fs, source, target: False)
    refuse_renames(monkeypatch, by_exception=False)
    with pytest.raises(InputError, match="could not be written") as error:
        store_bundle(context, bundle, bundle.name)
    assert "\n" not in str(error.value)


def test_temporary_files_of_a_writer_at_work_stay_and_are_no_part_of_the_bundle(
    context: Context, bundle: Path
) -> None:
    stored = at_root(context, bundle.name)
    store_bundle(context, bundle, bundle.name)
    for temporary in (stored / ".cf.safetensors.0af3.tmp", stored / "text_encoder" / ".config.json.9.tmp"):
        temporary.write_bytes(b"half of it")
    (stored / ".hidden").mkdir()
    (stored / ".hidden" / "file").write_text("?")
    before = files(stored)
    store_bundle(context, bundle, bundle.name)
    assert files(stored) == before
    verify_bundle(stored)


def test_a_bundle_that_is_there_is_not_written_again(context: Context, bundle: Path) -> None:
    def stamps() -> dict[str, tuple[int, int]]:
        paths = at_root(context, bundle.name).rglob("*")
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    store_bundle(context, bundle, bundle.name)
    before = stamps()
    store_bundle(context, bundle, bundle.name)
    assert stamps() == before


def test_what_0_1_0_left_where_it_was_killed_is_no_bundle(context: Context, bundle: Path) -> None:
    for ending in ("tmp", "old"):
        shutil.copytree(bundle, at_root(context, f"{bundle.name}.{uuid.uuid4().hex}.{ending}"))
    assert manifests(context) == []
    store_bundle(context, bundle, bundle.name)
    assert [manifest.bundle_id for manifest in manifests(context)] == [bundle.name]


def test_a_local_folder_that_is_not_whole_deletes_nothing(
    spark: SparkSession, bundle: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "stored"
    shutil.copytree(bundle, stored)
    for local in (tmp_path / "nowhere", bundle / "text_encoder"):
        with pytest.raises(InputError, match=r"no such file to publish"):
            filesystem.publish_folder(spark, local, str(stored), last="manifest.json")
    assert files(stored) == files(bundle)


def test_folders_go_up_and_down_whole(spark: SparkSession, tmp_path: Path) -> None:
    source, uri = tmp_path / "a folder", f"{tmp_path}/root/_bundles/b 1"
    (source / "inner" / "empty").mkdir(parents=True)
    (source / "manifest.json").write_text('{"a": "ü"}', encoding="utf-8")
    (source / "inner" / "x").write_text("1")
    for _ in range(2):
        filesystem.publish_folder(spark, source, uri, last="manifest.json")
    assert filesystem.list_folders(spark, f"{tmp_path}/root/_bundles") == ["b 1"]
    assert filesystem.list_names(spark, uri) == ["inner", "manifest.json"]
    assert filesystem.read_text(spark, f"{uri}/manifest.json") == '{"a": "ü"}'
    copy = filesystem.download(spark, uri, tmp_path / "the copy")
    assert files(copy) == ["inner", "inner/empty", "inner/x", "manifest.json"]
    assert (copy / "inner" / "x").read_text() == "1"
    for no_folder in (f"{uri}/manifest.json", f"{uri}/nothing"):
        with pytest.raises(InputError, match="no such folder"):
            filesystem.download(spark, no_folder, tmp_path / "other")


def test_two_downloads_at_once_both_return_the_whole_folder(
    spark: SparkSession, bundle: Path, tmp_path: Path
) -> None:
    for number in range(ROUNDS):
        local = tmp_path / "cache" / f"b{number}"
        at_once(*[lambda local=local: filesystem.download(spark, str(bundle), local)] * 2)
        verify_bundle(local)
    assert files(tmp_path / "cache" / "b0") == files(bundle)
    assert len(list((tmp_path / "cache").iterdir())) == ROUNDS, "nothing half-copied may stay"


def test_a_download_that_fails_leaves_nothing(
    spark: SparkSession, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fs: Any, *arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(RefusingFileSystem, "copyToLocalFile", failing, raising=False)
    refuse_renames(monkeypatch, by_exception=False)
    with pytest.raises(OSError, match="no space left"):
        filesystem.download(spark, str(bundle), tmp_path / "cache" / "b")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_bundle_of_a_remote_root_is_stored_and_fetched_by_two_at_once(
    spark: SparkSession, bundle: Path, tmp_path: Path
) -> None:
    context = remote_context(spark, tmp_path)
    at_once(*[lambda: store_bundle(context, bundle, bundle.name)] * 2)
    verify_bundle(tmp_path / "remote" / "_bundles" / bundle.name)
    (tmp_path / "remote" / "_bundles" / bundle.name / ".cf.safetensors.0af3.tmp").write_bytes(b"half of it")
    assert [manifest.bundle_id for manifest in manifests(context)] == [bundle.name]
    at_once(*[lambda: fetch_bundle(context, bundle.name)] * 2)
    fetched = fetch_bundle(context, bundle.name)
    assert fetched == tmp_path / "cache" / "bundles" / bundle.name
    assert files(fetched) == files(bundle)


def test_a_copy_of_a_bundle_that_was_damaged_then_is_fetched_again(
    spark: SparkSession, bundle: Path, tmp_path: Path
) -> None:
    context = remote_context(spark, tmp_path)
    shutil.copytree(bundle, tmp_path / "remote" / "_bundles" / bundle.name)
    shutil.copytree(bundle, tmp_path / "remote" / "_bundles" / bundle.name / f"{bundle.name}.0af3.tmp")
    with pytest.raises(BundleError, match="not one of its files"):
        verify_bundle(fetch_bundle(context, bundle.name))
    store_bundle(context, bundle, bundle.name)
    verify_bundle(fetch_bundle(context, bundle.name))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda values: values | {"bundle_id": "../../elsewhere"}, "bundle_id is '../../elsewhere'"),
        (
            lambda values: values | {"bundle_id": "another"},
            "the manifest of bundle another, expected that of",
        ),
        (lambda values: {**values, "num_items": None}, "num_items is None"),
        (lambda values: {"bundle_id": "old"}, "no manifest of a bundle"),
        (lambda values: [], "no manifest of a bundle"),
    ],
)
def test_a_damaged_bundle_that_no_night_uses_stops_none(
    context: Context, bundle: Path, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    store_bundle(context, bundle, bundle.name)
    said: list[str] = []
    context = replace(context, report=Report(said.append))
    old = Path(shutil.copytree(bundle, Path(context.tables.root) / "_bundles" / "old"))
    values = json.loads((old / MANIFEST).read_text(encoding="utf-8"))
    (old / MANIFEST).write_text(json.dumps(change(values)), encoding="utf-8")
    assert [manifest.bundle_id for manifest in manifests(context)] == [bundle.name]
    assert [why in line and line.endswith("it is left out") for line in said] == [True]
    named = context.config.model_copy(update={"bundle": BundleConfig(id="old")})
    context = replace(context, config=named)
    with pytest.raises(BundleError, match=re.escape(why)):
        bundle_store.choose_bundle(Night(context, date(2026, 6, 1)))

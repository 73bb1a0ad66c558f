"""What is said of processes that cannot be started, and of those that ended: one line. No JVM."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pyspark.sql import SparkSession

from allmrec import errors
from allmrec.config import Config, load
from allmrec.errors import PassingError, SetupError
from allmrec.runtime.processes import Processes, _meaning, _of_each_process

TWO = load([], ["training.processes=2"])
KILLED = """
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 4242)
"""
FAILED = RuntimeError("TorchDistributor failed during training.")


def session(master: str, **conf: str) -> SparkSession:
    """A session of which nothing is known but its master and its settings."""
    known = {name.replace("_", "."): value for name, value in conf.items()}
    found: Any = SimpleNamespace(sparkContext=SimpleNamespace(master=master), conf=known)
    return cast(SparkSession, found)


def test_one_process_needs_nobody() -> None:
    assert Processes.of(session("local[2]"), Config()) is None
    assert Processes.of(session("local[2]"), TWO) is not None


@pytest.mark.parametrize(
    ("spark", "num_gpus", "setting", "words"),
    [
        (session("local[*]"), 1, "seed=1", "this machine has 1 GPU.*set training.processes=1"),
        (session("local[*]"), 2, "llm.device=cuda:1", "llm.device is cuda:1.*set llm.device=auto"),
        (
            session("spark://host:7077", spark_ssl_enabled="true"),
            0,
            "seed=1",
            "this cluster encrypts.*set training.processes=1",
        ),
        (
            session("spark://host:7077", spark_executor_resource_gpu_amount="1"),
            0,
            "seed=1",
            "no task gets one.*spark.task.resource.gpu.amount=1",
        ),
    ],
)
def test_what_cannot_run_them_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, spark: SparkSession, num_gpus: int, setting: str, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    with pytest.raises(SetupError, match=f"^training.processes: 2.*{words}"):
        Processes.of(spark, load([], ["training.processes=2", setting]))


def test_a_torch_without_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allmrec.runtime.processes.find_spec", lambda name: None)
    with pytest.raises(SetupError, match="this torch has no torchrun"):
        Processes.of(session("local[2]"), TWO)


def told(folder: Path, *found: tuple[str, str], num_heard: int = 2) -> Path:
    """Write what processes said into a folder and return it."""
    for rank in range(num_heard):
        (folder / f"{rank}.txt").touch()
    for rank, (kind, text) in enumerate(found):
        (folder / f"{rank}.json").write_text(json.dumps({"kind": kind, "text": text}))
    return folder


def test_what_went_wrong_in_one_is_told_before_what_the_others_missed(tmp_path: Path) -> None:
    words = told(tmp_path, ("PassingError", "one was lost"), ("InputError", "cf: the loss became nan"))
    meaning = _meaning(FAILED, words, KILLED, 2)
    assert (type(meaning), str(meaning)) == (errors.InputError, "cf: the loss became nan")


def test_a_process_that_was_killed_is_trouble_that_passes(tmp_path: Path) -> None:
    meaning = _meaning(FAILED, told(tmp_path), KILLED, 2)
    assert isinstance(meaning, PassingError)
    assert "process 4242 of 2 was ended by signal 9" in str(meaning)


def test_a_folder_that_not_all_processes_see_is_named(tmp_path: Path) -> None:
    meaning = _meaning(FAILED, told(tmp_path, num_heard=1), "", 2)
    assert isinstance(meaning, SetupError)
    assert str(tmp_path) in str(meaning)
    assert "cache.folder" in str(meaning)


def test_a_cluster_without_room_for_all_is_named(tmp_path: Path) -> None:
    spark_says = RuntimeError("…\n[SPARK-24819]: Barrier execution mode does not allow it\n at …")
    meaning = _meaning(spark_says, told(tmp_path, num_heard=0), "", 2)
    assert isinstance(meaning, SetupError)
    assert str(meaning).endswith("Spark refuses to start them: Barrier execution mode does not allow it")


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    meaning = _meaning(FAILED, told(tmp_path), "Traceback (most recent call last): …", 2)
    assert type(meaning) is RuntimeError
    assert "Traceback" in str(meaning)


def test_the_processes_of_a_machine_divide_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    many = load([], ["training.processes=2", "training.num_threads=4"])
    assert _of_each_process(TWO, True).training.num_threads == 4
    assert _of_each_process(many, True).training.num_threads == 2
    assert _of_each_process(many, False).training.num_threads == 4
    assert _of_each_process(TWO, True).cache.folder is not None

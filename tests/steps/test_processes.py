"""Training in several processes: what they find, and what happens when one of them hangs or is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch
from pyspark.sql import SparkSession
from safetensors.torch import load_file
from torch import Tensor

from allmrec.bundle import AlignmentState, Bundle, CFState, State
from allmrec.config import Config, load
from allmrec.errors import PassingError
from allmrec.models.alignment import AlignmentNetworks
from allmrec.models.cf import build_cf_model
from allmrec.reporting import Report
from allmrec.runtime.processes import Processes
from allmrec.training.cf import train_cf
from allmrec.training.loader import Snapshot
from allmrec.training.pipeline import train_states
from allmrec.training.trainers import FrozenModels
from allmrec.training.work import Launch, Work
from tests.chaos.cluster import ROOT, cluster, submit
from tests.steps.conftest import TRAINED_BEFORE, settings
from tests.unit.snapshot_fixture import chain_snapshot, group_snapshot
from tests.unit.tiny_bundle import tiny_encoder, tiny_llm

CF = (
    "training.processes=2",
    "training.checkpoint_every=20",
    "cf.dropout=0.0",
    "cf.width=16",
    "cf.item_init=random",
    "cf.num_negatives=8",
    "cf.batch_size=13",
    "cf.epochs=30",
    "cf.patience=null",
)
STAGE2 = (
    "training.processes=2",
    "training.num_threads=2",
    "cf.width=8",
    "stage1.width=6",
    "stage2.warm_start_steps=10",
    "stage2.epochs=1",
    "stage2.max_examples=24",
    "stage2.evaluate_every=3",
    "stage2.evaluation_users=8",
    "stage2.num_candidates=5",
    "prompt.history_items=3",
    "sequences.max_history=8",
)
OF_WHAT_WAS_LEARNED = 0.01
"""Tolerance: float32 sums in another order differ by some 1e-7 of a gradient. Adam divides by the gradient's
size: where it is nothing but rounding, a step has its full length in another direction."""


def trained_cf(
    snapshot: Snapshot, config: Config, work: Path, launch: Launch | None
) -> tuple[Tensor, dict[str, float], list[str]]:
    """Return the trained item matrix, the figures but for the seconds, and the lines that were reported."""
    lines: list[str] = []
    texts = torch.eye(snapshot.num_items + 1) * (torch.arange(snapshot.num_items + 1) > 0)
    model, figures = train_cf(Work(snapshot, config, work, Report(lines.append), launch), {"text": texts})
    return model.item_matrix(), {**figures, "seconds": 0.0}, lines


def trained_stage2(folder: Path, work: Path, launch_of: Processes | None) -> tuple[Bundle, dict[str, float]]:
    """Train the projections on 120 users of four groups of items, over networks with random weights."""
    llm = tiny_llm(folder)
    sets = [f"llm.model={folder / 'llm0'}", f"cache.folder={folder / 'cache'}", "llm.dtype=float32"]
    config = load([], [*STAGE2, *sets])
    snapshot = Snapshot(folder / "snapshot")
    torch.manual_seed(0)
    cf = build_cf_model(config.cf, snapshot.num_items, snapshot.max_history)
    texts = torch.randn(snapshot.num_items + 1, 10)
    aligned: dict[str, State] = {
        "cf": CFState(cf, torch.from_numpy(snapshot.known_items())),
        "stage1": AlignmentState.of(AlignmentNetworks(8, 10, config.stage1), texts),
    }
    models = FrozenModels(llm, tiny_encoder(folder), snapshot.items(), texts.numpy())
    return train_states(Work(snapshot, config, work, Report(), launch_of), models, aligned)


def difference(found: Tensor, expected: Tensor, start: Tensor) -> float:
    """Return how far `found` is from `expected`, as a share of how far that is from the start."""
    return float((found - expected).norm().detach() / (expected - start).norm().detach())


@contextmanager
def signalled(number: int, checkpoints: Path) -> Iterator[list[psutil.Process]]:
    """Send the second process a signal once there is a checkpoint; yield the list of all, filled by then."""
    processes: list[psutil.Process] = []

    def send() -> None:
        while not list(checkpoints.glob("step_*")):
            time.sleep(0.005)
        processes.extend(of_training())
        os.kill(processes[1].pid, number)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    yield processes
    sending.join()


def of_training() -> list[psutil.Process]:
    """Return the processes that this one's training started, in the order of their ranks."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            environment = process.environ()
            if "RANK" in environment:
                found[int(environment["RANK"])] = process
    return [found[rank] for rank in sorted(found)]


def check_ended(processes: list[psutil.Process], checkpoints: Path) -> None:
    """Check that none of two processes is left, nor half of a checkpoint."""
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)
    assert [path.name[:5] for path in checkpoints.iterdir()] == ["step_"]


@pytest.mark.long
def test_a_process_that_hangs_ends_all_and_a_rerun_finds_what_one_process_finds(
    spark: SparkSession, tmp_path: Path
) -> None:
    snapshot, config = Snapshot(chain_snapshot(tmp_path / "snapshot")), load([], CF)
    work = tmp_path / "work"
    with (
        signalled(signal.SIGSTOP, work / "checkpoints") as processes,
        pytest.raises(PassingError, match="one of 2 processes hangs: no answer in 20 s, expected all to"),
    ):
        trained_cf(snapshot, config, work, Processes(spark, timeout_seconds=20))
    check_ended(processes, work / "checkpoints")
    items, figures, lines = trained_cf(snapshot, config, work, Processes.of(spark, config))
    assert lines[0] == "cf: trained by 2 processes of this machine"
    assert lines[1].startswith("cf: resumes at step ")
    assert len([line for line in lines if line.startswith("cf: done after 210 steps")]) == 1
    alone, expected, _ = trained_cf(snapshot, config, tmp_path / "alone", None)
    start = load_file(work / "start.safetensors")["item_embedding.weight"]
    assert difference(items, alone, start) < OF_WHAT_WAS_LEARNED
    assert figures == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("backbone", ["lightgcn", "morec"])
def test_two_processes_find_the_item_vectors_that_one_process_finds_with_a_module_beside_the_model(
    backbone: str, spark: SparkSession, tmp_path: Path
) -> None:
    snapshot = Snapshot(group_snapshot(tmp_path / "snapshot", 120))
    config = load([], [*CF, f"cf.model={backbone}", "cf.epochs=5"])
    items, _, _ = trained_cf(snapshot, config, tmp_path / "two", Processes.of(spark, config))
    alone, _, _ = trained_cf(snapshot, config, tmp_path / "one", None)
    start = load_file(tmp_path / "two" / "start.safetensors")["item_embedding.weight"]
    assert difference(items, alone, start) < OF_WHAT_WAS_LEARNED


def test_two_processes_find_the_projections_that_one_process_finds(
    spark: SparkSession, tmp_path: Path
) -> None:
    group_snapshot(tmp_path / "snapshot", 120)
    found, figures = trained_stage2(tmp_path, tmp_path / "two", Processes(spark))
    expected, figures_alone = trained_stage2(tmp_path, tmp_path / "one", None)
    [start] = (tmp_path / "two" / "stage2" / "start").iterdir()
    before = load_file(start / "stage2.safetensors")
    for name, value in expected.rec.projection.named_parameters():
        if not torch.equal(value, before[name]):
            now = found.rec.projection.get_parameter(name)
            assert difference(now, value, before[name]) < OF_WHAT_WAS_LEARNED, name
    for name in ("stage2_loss", "stage2_loss_after", "stage2_title_after", "stage2_listwise_after"):
        assert figures[name] == pytest.approx(figures_alone[name], abs=1e-4)
    assert figures["stage2_loss_after"] != figures["stage2_loss_before"]


@pytest.mark.long
def test_a_process_that_is_killed_ends_all_and_a_rerun_goes_on(spark: SparkSession, tmp_path: Path) -> None:
    snapshot, config = Snapshot(chain_snapshot(tmp_path / "snapshot")), load([], CF)
    with (
        signalled(signal.SIGKILL, tmp_path / "work" / "checkpoints") as processes,
        pytest.raises(PassingError, match=r"was ended by signal 9|one of 2 processes was lost"),
    ):
        trained_cf(snapshot, config, tmp_path / "work", Processes(spark))
    check_ended(processes, tmp_path / "work" / "checkpoints")
    _, _, lines = trained_cf(snapshot, config, tmp_path / "work", Processes(spark))
    assert lines[1].startswith("cf: resumes at step ")


@pytest.mark.long
def test_the_processes_of_a_cluster_train_a_bundle(copy_of_shop: Path, tmp_path: Path) -> None:
    sets = [*settings(copy_of_shop), "training.processes=2"]
    with cluster(tmp_path / "cluster") as (master, _):
        *command, _ = submit(master)
        command += [str(ROOT / "jobs" / "train.py"), "--run-date", str(TRAINED_BEFORE)]
        command += [part for value in sets for part in ("--set", value)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    for part in ("cf", "stage2"):
        assert f"{part}: trained by 2 processes of the cluster" in said
        assert f"{part}: done after" in said
    assert re.search(r"bundle [0-9a-f]{16}\n", said)

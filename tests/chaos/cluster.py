"""Nights on a standalone cluster, one of whose executors is killed while it scores."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from tests.chaos.cases import Broken, Case
from tests.chaos.processes import running
from tests.chaos.shop import FIRST_NIGHT, Shop
from tests.chaos.signals import SCORING
from tests.chaos.verdict import check
from tests.conftest import SHORT_RUNS
from tests.steps.test_standalone import ROOT, free_port


def lost_executors(shop: Shop, num: int, rng: random.Random) -> list[Case]:
    """Return `num` cases."""
    cases = []
    for _ in range(num):
        delay = rng.uniform(0, 8)
        title = f"{FIRST_NIGHT}, an executor is killed {delay:.1f} s after scoring began"
        cases.append(Case("cluster", title, partial(lose_an_executor, shop, delay)))
    return cases


def lose_an_executor(shop: Shop, delay: float) -> str:
    """Submit a night, kill an executor, run the night again where it did not end well, and check."""
    root = shop.copy(FIRST_NIGHT.base)
    with cluster(root.with_name(f"{root.name}-cluster")) as (master, workers):
        with running(shop, root, FIRST_NIGHT, submit(master)) as one:
            one.wait_for(SCORING)
            time.sleep(delay)
            executors = [process for worker in workers for process in _executors(worker)]
            if not executors:
                raise Broken(f"{one.said}: no executor {delay:.1f} s after scoring began: {one.text[-500:]}")
            executors[0].kill()
            code = one.wait()
            said = one.text
        if code not in (0, 4):
            raise Broken(f"{one.said}: exit code {code}, expected 0 or 4: {said[-1000:]}")
    if code:
        shop.run(FIRST_NIGHT, root)
    check(shop, root, [FIRST_NIGHT])
    return "a rerun completed it" if code else "it completed by itself"


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """Yield the master's URL of a cluster with two workers of one core, and the workers."""
    port = free_port()
    environment = {**os.environ, "RUN_FOLDER": str(folder), "PORT": str(port), "UI_PORT": str(free_port())}
    environment["PYTHON"] = sys.executable
    scripts = ROOT / "deploy" / "standalone"

    def run(script: str) -> None:
        subprocess.run([str(scripts / script)], env=environment, check=True, capture_output=True, timeout=120)

    try:
        run("start.sh")
        pids = [int(path.read_text()) for path in sorted(folder.glob("worker-*.pid"))]
        yield f"spark://127.0.0.1:{port}", [psutil.Process(pid) for pid in pids]
    finally:
        run("stop.sh")


def submit(master: str) -> list[str]:
    """Return the command that submits the nightly job to the cluster."""
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.executor.memory": "1g",
        "spark.executor.extraJavaOptions": SHORT_RUNS,
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.pyspark.python": sys.executable,
    }
    options = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    command = [str(Path(sys.executable).with_name("spark-submit")), "--master", master]
    defaults = ["--properties-file", str(ROOT / "conf" / "spark-defaults.conf")]
    return [*command, *defaults, *options, str(ROOT / "jobs" / "nightly.py")]


def _executors(worker: psutil.Process) -> list[psutil.Process]:
    """Return the JVMs of a worker's executors."""
    found = []
    for process in worker.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()):
                found.append(process)
    return found

"""Training in several processes, which Spark's TorchDistributor starts.

In local mode they run on this machine; else each is a task of one Spark stage, and all of them start or none.
Inputs and checkpoints are in a folder that all processes see (`allmrec.training.process`).
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO, cast

import torch
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from allmrec import errors
from allmrec.cache import cache_folder
from allmrec.config import CacheConfig, Config
from allmrec.errors import PassingError, SetupError, UserError
from allmrec.reporting import Report
from allmrec.runtime.workers import gpus, is_local
from allmrec.training.process import WORDS, train_in_process
from allmrec.training.work import Work

TIMEOUT_SECONDS = 1800
"""How long a process waits for the others before all of them end.

They wait while one loads the LLM, and while the first evaluates and writes a checkpoint: minutes with a large
LLM.
"""
SHUTDOWN_SECONDS = 5
"""Seconds between torchrun's signal to end and the kill. A hanging process ignores the signal."""
SECONDS_BETWEEN_LOOKS = 0.5
"""How often the lines of the first process are read."""
ENDED_BY_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+) \(pid: (\d+)\)")
"""torchrun's line about a killed process."""
REFUSED = re.compile(r"\[SPARK-\d+\]: (Barrier [^\n]+)")
"""Spark's message if it cannot start all tasks of a stage together."""


@dataclass(frozen=True)
class Processes:
    """The launcher of the processes that train a part together (`allmrec.training.work.Launch`)."""

    session: SparkSession
    timeout_seconds: float = TIMEOUT_SECONDS

    @classmethod
    def of(cls, session: SparkSession, config: Config) -> Processes | None:
        """Return the launcher of `training.processes` processes, or None for a single process.

        Raises SetupError where this machine or cluster cannot run them.
        """
        if config.training.processes == 1:
            return None
        _check(session, config)
        return cls(session)

    def __call__(self, part: str, work: Work) -> None:
        """Train a part, and relay the first process's report.

        All processes have ended when it returns. Raises the error of a process, PassingError where a process
        hung or was killed.
        """
        config = work.config
        report = work.report
        on_this_machine = is_local(self.session)
        num = config.training.processes
        where = "this machine" if on_this_machine else "the cluster"
        report(f"{part}: trained by {num} processes of {where}")
        # On this machine the processes take its GPUs themselves; Spark requires a driver with configured
        # GPUs.
        use_gpu = not on_this_machine and gpus(self.session, "task") > 0
        distributor = TorchDistributor(num, local_mode=on_this_machine, use_gpu=use_gpu)
        distributor.logger.setLevel("WARNING")
        settings = _of_each_process(config, on_this_machine).model_dump_json()
        os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(SHUTDOWN_SECONDS)
        words = work.folder / WORDS
        output = _Overheard(sys.stdout)
        shutil.rmtree(words, ignore_errors=True)
        words.mkdir(parents=True)
        try:
            with _relayed(words / "0.txt", report), redirect_stdout(cast(TextIO, output)):
                places = [str(place.resolve()) for place in (work.folder, work.snapshot.folder)]
                distributor.run(train_in_process, part, *places, settings, self.timeout_seconds)
        except (RuntimeError, Py4JError, PySparkException) as error:
            raise _meaning(error, words, output.kept.getvalue(), num) from error


class _Overheard:
    """Captures this thread's standard output. Other threads write to the original."""

    def __init__(self, before: TextIO) -> None:
        self.kept = io.StringIO()
        self._before = before
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        """Capture the text, or write it to the original."""
        return (self.kept if threading.get_ident() == self._thread else self._before).write(text)

    def flush(self) -> None:
        """Flush the original."""
        self._before.flush()


def _check(session: SparkSession, config: Config) -> None:
    """Raise SetupError where this machine or cluster cannot run the processes."""
    num = config.training.processes
    asked = f"training.processes: {num}"
    if not torch.distributed.is_available() or find_spec("torch.distributed.run") is None:
        raise SetupError(
            f"{asked}, but this torch has no torchrun; install the one of deploy/constraints.txt"
        )
    if is_local(session):
        num_gpus = torch.cuda.device_count()
        if 0 < num_gpus < num:
            raise SetupError(
                f"{asked}, but this machine has {num_gpus} GPU(s), expected one for each process; "
                f"set training.processes={num_gpus}"
            )
    elif session.conf.get("spark.ssl.enabled", "false") == "true":
        raise SetupError(
            f"{asked}, but this cluster encrypts (spark.ssl.enabled), which TorchDistributor cannot; "
            "set training.processes=1"
        )
    elif gpus(session, "executor") and not gpus(session, "task"):
        raise SetupError(
            f"{asked} on executors with GPUs, but no task gets one, expected one for each process; "
            "train with --conf spark.task.resource.gpu.amount=1"
        )
    if config.llm.device not in ("auto", "cpu"):
        raise SetupError(
            f"{asked}, but llm.device is {config.llm.device}, expected a GPU for each process; "
            "set llm.device=auto"
        )


def _of_each_process(config: Config, on_this_machine: bool) -> Config:
    """Return the configuration with absolute cache and divided threads.

    The configuration is written to a file for each process, without `spark.settings`.
    """
    cache = CacheConfig(folder=str(cache_folder(config.cache).resolve()))
    num_threads = config.training.num_threads
    if on_this_machine:
        num_threads = max(1, (num_threads or torch.get_num_threads()) // config.training.processes)
    training = config.training.model_copy(update={"num_threads": num_threads})
    return config.without_secrets().model_copy(update={"cache": cache, "training": training})


@contextmanager
def _relayed(said: Path, report: Report) -> Iterator[None]:
    """Report the lines that are appended to a file during the block."""
    is_over = threading.Event()

    def relay() -> None:
        num_told = 0
        is_last_look = False
        while not is_last_look:
            is_last_look = is_over.wait(SECONDS_BETWEEN_LOOKS)
            lines = said.read_text(encoding="utf-8").splitlines() if said.exists() else []
            for line in lines[num_told:]:
                report(line)
            num_told = len(lines)

    relaying = threading.Thread(target=relay, daemon=True)
    relaying.start()
    try:
        yield
    finally:
        is_over.set()
        relaying.join()


def _meaning(error: Exception, words: Path, output: str, num: int) -> Exception:
    """Return the error that ended the processes."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(words.glob("*.json"))]
    raised: list[UserError] = [getattr(errors, one["kind"])(one["text"]) for one in told]
    if raised:  # the first fault, before the errors of processes that waited for it
        return min(raised, key=lambda one: isinstance(one, PassingError))
    killed = ENDED_BY_SIGNAL.search(output)
    if killed:
        return PassingError(
            f"training.processes: process {killed[2]} of {num} was ended by signal {killed[1]}, expected all "
            "to train to the end (9 may be a lack of memory); "
            "run the same command again: it resumes from the last checkpoint"
        )
    refused = REFUSED.search(str(error))
    if refused:
        return SetupError(f"training.processes: {num}, but Spark refuses to start them: {refused[1]}")
    if len(list(words.glob("*.txt"))) < num:
        return SetupError(
            f"training.processes: not all of {num} processes could write to {words}, expected a folder on "
            "storage that all machines see (Spark's log has their output); set cache.folder to one"
        )
    return RuntimeError(f"the output of the processes:\n{output}") if output else error

"""Training in several processes: Spark's TorchDistributor starts them, and this waits for their end.

In local mode they run on this machine; else each is a task of one Spark stage, and all of them start or none.
What they are to train lies in a folder that they all see (`allmrec.training.process`), and so do the
checkpoints that are their result.
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
from allmrec.config import Config
from allmrec.errors import PassingError, SetupError, UserError
from allmrec.reporting import Report
from allmrec.runtime.workers import gpus, is_local
from allmrec.training.loader import Snapshot
from allmrec.training.process import WORDS, train_in_process

TIMEOUT_SECONDS = 1800
"""How long a process waits for the others before it ends, and with it all of them. They wait while one still
loads the LLM, and while the first evaluates and writes a checkpoint: minutes, with a large LLM."""
SHUTDOWN_SECONDS = 5
"""What torchrun gives a process that is told to end, before it is killed; one that hangs does not hear it."""
SECONDS_BETWEEN_LOOKS = 0.5
"""How often the lines of the first process are read."""
ENDED_BY_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+) \(pid: (\d+)\)")
"""How torchrun tells that a process was killed."""
REFUSED = re.compile(r"\[SPARK-\d+\]: (Barrier [^\n]+)")
"""What Spark says where it cannot start all of a stage's tasks together."""


@dataclass(frozen=True)
class Processes:
    """Starts the processes that train a part together (`allmrec.training.group.Launch`)."""

    session: SparkSession
    timeout_seconds: float = TIMEOUT_SECONDS

    @classmethod
    def of(cls, session: SparkSession, config: Config) -> Processes | None:
        """Return what starts `training.processes` processes; None where there is one, which needs no other.

        Raises SetupError where this machine or cluster cannot run them.
        """
        if config.training.processes == 1:
            return None
        _check(session, config)
        return cls(session)

    def __call__(self, part: str, folder: Path, snapshot: Snapshot, config: Config, report: Report) -> None:
        """Train a part, and report what the first process says.

        Raises what one of them raised, PassingError where one hung or was killed; none is left behind.
        """
        on_this_machine, num = is_local(self.session), config.training.processes
        where = "this machine" if on_this_machine else "the cluster"
        report(f"{part}: trained by {num} processes of {where}")
        # On this machine they take its GPUs by themselves; Spark would want a driver with configured ones.
        use_gpu = not on_this_machine and gpus(self.session, "task") > 0
        distributor = TorchDistributor(num, local_mode=on_this_machine, use_gpu=use_gpu)
        distributor.logger.setLevel("WARNING")
        settings = _of_each_process(config, on_this_machine).model_dump_json()
        os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(SHUTDOWN_SECONDS)
        words, output = folder / WORDS, _Overheard(sys.stdout)
        shutil.rmtree(words, ignore_errors=True)
        words.mkdir(parents=True)
        try:
            with _relayed(words / "0.txt", report), redirect_stdout(cast(TextIO, output)):
                places = [str(place.resolve()) for place in (folder, snapshot.folder)]
                distributor.run(train_in_process, part, *places, settings, self.timeout_seconds)
        except (RuntimeError, Py4JError, PySparkException) as error:
            raise _meaning(error, words, output.kept.getvalue(), num) from error


class _Overheard:
    """A standard output that keeps what this thread writes; what others write goes where it went before."""

    def __init__(self, before: TextIO) -> None:
        self.kept, self._before, self._thread = io.StringIO(), before, threading.get_ident()

    def write(self, text: str) -> int:
        """Keep the text, or write it."""
        return (self.kept if threading.get_ident() == self._thread else self._before).write(text)

    def flush(self) -> None:
        """Flush what is not kept."""
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
    """Return the configuration with this machine's cache and with each process's share of its threads.

    It is written to a file for each process, so it has no `spark.settings`.
    """
    llm = config.llm.model_copy(update={"cache": str(cache_folder(config.llm).resolve())})
    num_threads = config.training.num_threads
    if on_this_machine:
        num_threads = max(1, (num_threads or torch.get_num_threads()) // config.training.processes)
    training = config.training.model_copy(update={"num_threads": num_threads})
    return config.without_secrets().model_copy(update={"llm": llm, "training": training})


@contextmanager
def _relayed(said: Path, report: Report) -> Iterator[None]:
    """Report the lines that come into a file while the block runs."""
    is_over = threading.Event()

    def relay() -> None:
        num_told, is_last_look = 0, False
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
    """Return what ended the processes: the error that one of them told, or what can be seen from outside."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(words.glob("*.json"))]
    raised: list[UserError] = [getattr(errors, one["kind"])(one["text"]) for one in told]
    if raised:  # what went wrong in one is told before what the others missed
        return min(raised, key=lambda one: isinstance(one, PassingError))
    killed = ENDED_BY_SIGNAL.search(output)
    if killed:
        return PassingError(
            f"training.processes: process {killed[2]} of {num} was ended by signal {killed[1]}, expected all "
            "to train to the end (9 may be a lack of memory); "
            "run the same command again: it goes on from the last checkpoint"
        )
    refused = REFUSED.search(str(error))
    if refused:
        return SetupError(f"training.processes: {num}, but Spark refuses to start them: {refused[1]}")
    if len(list(words.glob("*.txt"))) < num:
        return SetupError(
            f"training.processes: not all of {num} processes could write to {words}, expected a folder on "
            "storage that all machines see (what they said is in Spark's log); set llm.cache to one"
        )
    return RuntimeError(f"the processes said:\n{output}") if output else error

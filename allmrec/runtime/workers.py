"""What a Spark Python worker keeps between tasks: bundle, retriever and scorer, loaded once per process.

A bundle travels as one zip file, not compressed, by `SparkContext.addFile` (Spark sends no folders to
executors) and is unpacked once per machine. Where all workers would share one GPU, this process takes the
place of all of them.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pandas as pd
import torch
from pyspark import SparkContext, SparkFiles, TaskContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from allmrec.bundle import Bundle, load_bundle
from allmrec.bundle.store import check_llm
from allmrec.config import Config, LLMConfig
from allmrec.llm.frozen import FrozenLLM, device_of
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer

Model = TypeVar("Model")
Work = Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]
"""What `DataFrame.mapInPandas` takes."""

_LOADED: dict[tuple[str, str, Hashable], object] = {}
"""This process's models by (kind, bundle_id, settings)."""


@dataclass(frozen=True)
class WorkerModel:
    """What a task needs to load its models; small enough to travel in a closure."""

    bundle_id: str
    config: Config

    @staticmethod
    def ship(context: SparkContext, folder: Path, bundle_id: str, config: Config) -> WorkerModel:
        """Send a bundle's folder to every executor, once per session, and return what tasks load it with."""
        path = Path(_shipping_folder().name) / f"{bundle_id}.zip"
        if not any(Path(shipped).name == path.name for shipped in context.listFiles):
            # Weights do not compress; files of an image may be dated 1970, which zip cannot say.
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
                for file in sorted(folder.rglob("*")):
                    archive.write(file, Path(bundle_id) / file.relative_to(folder))
            context.addFile(str(path))
        return WorkerModel(bundle_id, config)

    def bundle(self) -> Bundle:
        """Return the bundle as this worker loaded it (every file's checksum verified at the first load)."""
        return _once("bundle", self.bundle_id, None, lambda: load_bundle(self._folder(), None))

    def retriever(self, available: np.ndarray | None) -> Retriever:
        """Return this worker's retriever over the `available` items; it needs no LLM.

        They are [I+1] bool; None: all of the bundle.
        """
        settings = (None if available is None else hash(available.tobytes()), self.config.candidates)
        return _once("retriever", self.bundle_id, settings, lambda: self._retriever(available))

    def scorer(self, with_llm: bool) -> Scorer:
        """Return this worker's scorer; the LLM is loaded at the first user that needs it."""
        settings = (with_llm, self.config.scoring)
        return _once("scorer", self.bundle_id, settings, lambda: self._scorer(with_llm))

    def _retriever(self, available: np.ndarray | None) -> Retriever:
        self._set_threads()
        return Retriever(self.bundle(), available, self.config.candidates)

    def _scorer(self, with_llm: bool) -> Scorer:
        self._set_threads()
        if not with_llm:
            return Scorer(self.bundle(), None, self.config)
        llm = FrozenLLM.load(_on_task_gpu(self.config.llm))
        check_llm(self.bundle().manifest, llm.name, llm.weight_hash)
        return Scorer(self.bundle(), llm, self.config)

    def _set_threads(self) -> None:
        torch.set_num_threads(self.config.scoring.num_threads)

    def _folder(self) -> Path:
        """Return the unpacked bundle on this machine."""
        path = Path(SparkFiles.get(f"{self.bundle_id}.zip"))
        folder = path.with_name(f"{self.bundle_id}.bundle") / self.bundle_id
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
    """Return this process's folder of shipped files, made by the first call and deleted at exit.

    Executors fetch a file when they first need it.
    """
    return tempfile.TemporaryDirectory(prefix="allmrec-")


def with_llm(rows: DataFrame, work: Work, schema: StructType | str, settings: LLMConfig) -> DataFrame:
    """Return what `work`, which asks the LLM, makes of the rows: in the workers, or in this process.

    Where executors have GPUs, each of these tasks takes one, and no other task of the night does. In local
    mode Spark assigns no GPU, and every worker would load the LLM onto the same one.
    """
    by_workers = rows.mapInPandas(work, schema, profile=_one_gpu_a_task(rows.sparkSession))
    if not would_share_a_gpu(rows.sparkSession, settings):
        return by_workers
    found = list(work([rows.toPandas()]))
    values = pd.concat(found)[by_workers.columns] if found else []
    return rows.sparkSession.createDataFrame(values, by_workers.schema)


def would_share_a_gpu(session: SparkSession, settings: LLMConfig) -> bool:
    """Return whether the workers are on this machine, none has a GPU of its own, and the LLM takes one."""
    return is_local(session) and device_of(settings).type == "cuda"


def is_local(session: SparkSession) -> bool:
    """Return whether the session's tasks run on this machine, in the driver's own JVM."""
    master = session.sparkContext.master or ""
    return master.startswith("local") and not master.startswith("local-cluster")


def executors_have_gpus(session: SparkSession) -> bool:
    """Return whether the session's executors, or all of its tasks, were given GPUs."""
    return any(gpus(session, owner) for owner in ("executor", "task"))


def _one_gpu_a_task(session: SparkSession) -> ResourceProfile | None:
    """Return the resources of a task that asks the LLM; None: those of every task."""
    if gpus(session, "task") or not gpus(session, "executor"):
        return None
    cpus = int(session.conf.get("spark.task.cpus", "1") or 1)
    return ResourceProfileBuilder().require(TaskResourceRequests().cpus(cpus).resource("gpu", 1)).build


def gpus(session: SparkSession, owner: str) -> float:
    """Return how many GPUs the session gives an `owner`: every executor, or every task."""
    return float(session.conf.get(f"spark.{owner}.resource.gpu.amount", "0") or 0)


def _on_task_gpu(settings: LLMConfig) -> LLMConfig:
    """Return the LLM's settings with the task's GPU, where Spark gave it one and the device is left open."""
    task = TaskContext.get()
    if settings.device != "auto" or task is None or "gpu" not in task.resources():
        return settings
    return settings.model_copy(update={"device": f"cuda:{task.resources()['gpu'].addresses[0]}"})


def _once(kind: str, bundle_id: str, settings: Hashable, make: Callable[[], Model]) -> Model:
    """Return this process's model, made where it is missing.

    One of the same kind and another bundle is dropped first: a worker serves one bundle at a time.
    """
    key = (kind, bundle_id, settings)
    if key not in _LOADED:
        others = [known for known in _LOADED if known[0] == kind and known[1] != bundle_id]
        for old in others:
            del _LOADED[old]
        if others:
            gc.unfreeze()
            gc.collect()
        _LOADED[key] = make()
        # Spark collects garbage after every task: what stays is not to be looked at each time.
        gc.freeze()
    return cast(Model, _LOADED[key])

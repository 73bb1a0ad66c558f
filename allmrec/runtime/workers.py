"""Models that a Spark Python worker keeps between tasks: bundle, retriever, scorer.

If all workers would share one GPU, this process does their work.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pandas as pd
import torch
from pyspark import SparkContext, TaskContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from allmrec.bundle import Bundle, load_bundle
from allmrec.bundle.store import check_llm
from allmrec.cache import cache_folder
from allmrec.config import Config, LLMConfig
from allmrec.llm.frozen import FrozenLLM, device_of
from allmrec.runtime.shipping import ship, shipped_folder
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer

Model = TypeVar("Model")
Work = Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]
"""The argument of `DataFrame.mapInPandas`."""

_LOADED: dict[tuple[str, str, Hashable], object] = {}
"""This process's models by (kind, bundle_id, settings)."""


@dataclass(frozen=True)
class WorkerModel:
    """The description from which a task loads its models."""

    bundle_id: str
    config: Config

    @staticmethod
    def ship(context: SparkContext, folder: Path, bundle_id: str, config: Config) -> WorkerModel:
        """Send a bundle to every executor, once per session. Return its description for tasks."""
        ship(context, folder, bundle_id)
        return WorkerModel(bundle_id, config)

    def bundle(self) -> Bundle:
        """Return this worker's bundle, whose checksums are verified when it is loaded."""
        return _once(
            "bundle", self.bundle_id, None, lambda: load_bundle(shipped_folder(self.bundle_id), None)
        )

    def retriever(self, available: np.ndarray | None) -> Retriever:
        """Return this worker's retriever over the `available` items. Retrieval needs no LLM.

        `available` is [I+1] bool; None: all items of the bundle.
        """
        settings = (None if available is None else hash(available.tobytes()), self.config.candidates)
        return _once("retriever", self.bundle_id, settings, lambda: self._retriever(available))

    def scorer(self, with_llm: bool) -> Scorer:
        """Return this worker's scorer. The LLM is loaded for the first user that needs it."""
        settings = (with_llm, self.config.scoring)
        return _once("scorer", self.bundle_id, settings, lambda: self._scorer(with_llm))

    def _retriever(self, available: np.ndarray | None) -> Retriever:
        self._set_threads()
        return Retriever(self.bundle(), available, self.config.candidates)

    def _scorer(self, with_llm: bool) -> Scorer:
        self._set_threads()
        if not with_llm:
            return Scorer(self.bundle(), None, self.config)
        llm = FrozenLLM.load(_on_task_gpu(self.config.llm), cache_folder(self.config.cache))
        check_llm(self.bundle().manifest, llm.name, llm.weight_hash)
        return Scorer(self.bundle(), llm, self.config)

    def _set_threads(self) -> None:
        torch.set_num_threads(self.config.scoring.num_threads)


def with_llm(rows: DataFrame, work: Work, schema: StructType | str, settings: LLMConfig) -> DataFrame:
    """Return the rows that `work`, which asks the LLM, makes.

    If executors have GPUs, each of these tasks takes one, and other tasks of the night take none. In local
    mode this process does the work on a GPU, because Spark assigns none and every worker would load the LLM
    onto the same one.
    """
    by_workers = rows.mapInPandas(work, schema, profile=_one_gpu_a_task(rows.sparkSession))
    if not would_share_a_gpu(rows.sparkSession, settings):
        return by_workers
    found = list(work([rows.toPandas()]))
    values = pd.concat(found)[by_workers.columns] if found else []
    return rows.sparkSession.createDataFrame(values, by_workers.schema)


def would_share_a_gpu(session: SparkSession, settings: LLMConfig) -> bool:
    """Return whether all workers of this machine would share a GPU."""
    return is_local(session) and device_of(settings).type == "cuda"


def is_local(session: SparkSession) -> bool:
    """Return whether tasks run in the driver's own JVM."""
    master = session.sparkContext.master or ""
    return master.startswith("local") and not master.startswith("local-cluster")


def executors_have_gpus(session: SparkSession) -> bool:
    """Return whether the session's executors, or all of its tasks, have GPUs."""
    return any(gpus(session, owner) for owner in ("executor", "task"))


def _one_gpu_a_task(session: SparkSession) -> ResourceProfile | None:
    """Return the resources of a task that asks the LLM. None: the same as every task."""
    if gpus(session, "task") or not gpus(session, "executor"):
        return None
    cpus = int(session.conf.get("spark.task.cpus", "1") or 1)
    return ResourceProfileBuilder().require(TaskResourceRequests().cpus(cpus).resource("gpu", 1)).build


def gpus(session: SparkSession, owner: str) -> float:
    """Return how many GPUs every `owner` has: executor or task."""
    return float(session.conf.get(f"spark.{owner}.resource.gpu.amount", "0") or 0)


def _on_task_gpu(settings: LLMConfig) -> LLMConfig:
    """Return the LLM's settings with the task's GPU, if it has one."""
    task = TaskContext.get()
    if settings.device != "auto" or task is None or "gpu" not in task.resources():
        return settings
    return settings.model_copy(update={"device": f"cuda:{task.resources()['gpu'].addresses[0]}"})


def _once(kind: str, bundle_id: str, settings: Hashable, make: Callable[[], Model]) -> Model:
    """Return this process's model, made if it is missing.

    Models of the same kind and another bundle are dropped first, because a worker serves one bundle at a
    time.
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
        # Spark collects garbage after every task, which would look through the models each time.
        gc.freeze()
    return cast(Model, _LOADED[key])

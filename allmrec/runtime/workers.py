"""What a Spark Python worker keeps between tasks: the bundle, the retriever and the scorer, loaded once a process.

A bundle travels as one tar file by `SparkContext.addFile` (Spark sends no folders to executors) and is unpacked once a machine.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from pyspark import SparkContext, SparkFiles, TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.bundle import Bundle, load_bundle
from allmrec.bundle.store import check_llm
from allmrec.config import Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.scoring.retrieval import Retriever
from allmrec.scoring.scorer import Scorer

_LOADED: dict[tuple, object] = {}
"""This process's models, by what they were loaded from. One entry a kind: a worker serves one bundle at a time."""

MOST_PARTITIONS = 2000
"""Partitions a job over users has at most; beyond it a partition holds several chunks."""
DRAWS_A_PARTITION = 50
"""Numbers hashed to find one for every partition: the chance that one of 2,000 gets none is 2,000 · e⁻⁵⁰."""

_SHIPPED = tempfile.TemporaryDirectory(prefix="allmrec-")
"""Where shipped files lie until this process ends: executors fetch them when they first need them."""


@dataclass(frozen=True)
class WorkerModel:
    """What a task needs to load its models; small enough to travel in a closure."""

    bundle_id: str
    config: Config

    @staticmethod
    def ship(context: SparkContext, folder: Path, bundle_id: str, config: Config) -> WorkerModel:
        """Send a bundle's folder to every executor, once a session, and return what tasks load it with."""
        path = Path(_SHIPPED.name) / f"{bundle_id}.tar"
        if not any(Path(shipped).name == path.name for shipped in context.listFiles):
            with tarfile.open(path, "w") as tar:
                tar.add(folder, bundle_id)
            context.addFile(str(path))
        return WorkerModel(bundle_id, config)

    def retriever(self, available: frozenset[str]) -> Retriever:
        """Return this worker's retriever over the available items; needs no LLM."""
        return _once(
            ("retriever", self.bundle_id, hash(available), self.config.candidates),
            lambda: self._retriever(available),
        )  # type: ignore[return-value]

    def scorer(self, with_llm: bool) -> Scorer:
        """Return this worker's scorer; the LLM is loaded at the first user that needs it."""
        return _once(
            ("scorer", self.bundle_id, with_llm, self.config.scoring), lambda: self._scorer(with_llm)
        )  # type: ignore[return-value]

    def bundle(self) -> Bundle:
        """Return the bundle as this worker loaded it (every file's checksum verified at the first load)."""
        return _once(("bundle", self.bundle_id), lambda: load_bundle(self._folder(), None))  # type: ignore[return-value]

    def _retriever(self, available: frozenset[str]) -> Retriever:
        self._threads()
        return Retriever(self.bundle(), set(available), self.config.candidates)

    def _scorer(self, with_llm: bool) -> Scorer:
        self._threads()
        if not with_llm:
            return Scorer(self.bundle(), None, self.config)
        settings = self.config.llm
        task = TaskContext.get()
        if settings.device == "auto" and task is not None and "gpu" in task.resources():
            settings = settings.model_copy(update={"device": f"cuda:{task.resources()['gpu'].addresses[0]}"})
        llm = FrozenLLM.load(settings)
        check_llm(self.bundle().manifest, llm)
        return Scorer(self.bundle(), llm, self.config)

    def _threads(self) -> None:
        torch.set_num_threads(self.config.scoring.num_threads)

    def _folder(self) -> Path:
        tar_path = Path(SparkFiles.get(f"{self.bundle_id}.tar"))
        folder = tar_path.with_name(f"{self.bundle_id}.bundle") / self.bundle_id
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(dir=tar_path.parent))
            with tarfile.open(tar_path) as tar:
                tar.extractall(scratch, filter="data")
            try:
                os.rename(scratch, folder.parent)
            except OSError:  # another worker of this machine was first
                shutil.rmtree(scratch)
        return folder


def _once(key: tuple, make: Callable[[], object]) -> object:
    if key not in _LOADED:
        for old in [known for known in _LOADED if known[0] == key[0] and known[1] != key[1]]:
            del _LOADED[old]
        _LOADED[key] = make()
    return _LOADED[key]


def in_chunks(rows: DataFrame, num_rows: int, chunk_users: int) -> DataFrame:
    """Return the `num_rows` rows with a column `chunk`, partitioned and sorted so that each chunk's users lie together, by user_id.

    Users hash into a number of chunks that depends on the number of rows alone, never on the cluster: what is computed together, and so its
    rounding, is fixed by the data.
    """
    num_chunks = -(-num_rows // chunk_users) or 1
    partitions = min(num_chunks, MOST_PARTITIONS)
    chunk = F.pmod(F.xxhash64("user_id"), F.lit(num_chunks)).cast("int")
    key = F.array(*map(F.lit, _partition_keys(rows.sparkSession, partitions)))[
        F.pmod("chunk", F.lit(partitions))
    ]
    return (
        rows.withColumn("chunk", chunk).repartition(partitions, key).sortWithinPartitions("chunk", "user_id")
    )


@lru_cache
def _partition_keys(session: SparkSession, partitions: int) -> list[int]:
    """Return for every partition a number that Spark's hash sends there: chunks hashed as they are would share some and leave others empty."""
    numbers = session.range(partitions * DRAWS_A_PARTITION).withColumn(
        "partition", F.pmod(F.hash(F.col("id").cast("int")), F.lit(partitions))
    )
    return [row[1] for row in sorted(numbers.groupBy("partition").agg(F.min("id").cast("int")).collect())]


def by_chunk(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield one frame a chunk from the Arrow batches of a partition made by `in_chunks` (a batch may end inside a chunk)."""
    pending: list[pd.DataFrame] = []
    for frame in frames:
        for chunk, part in frame.groupby("chunk", sort=False):
            if pending and pending[-1]["chunk"].iat[0] != chunk:
                yield pd.concat(pending, ignore_index=True)
                pending = []
            pending.append(part)
    if pending:
        yield pd.concat(pending, ignore_index=True)

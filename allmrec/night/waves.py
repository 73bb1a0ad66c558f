"""Scoring of a night in waves, from which a killed night resumes.

Users of the LLM are divided into chunks by their last activity, so that the most active are scored before a
deadline; the others hash into larger chunks. A wave is some chunks for every task slot. Before each wave the
run checks that it is still the newest of its date.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

import numpy as np
import pandas as pd
from pyspark import Accumulator, StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.ranking.candidate_lists import CandidateLists
from allmrec.ranking.rankers import served_order
from allmrec.ranking.served import ranked_rows
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night, StepRun
from allmrec.runtime.workers import WorkerModel, with_llm
from allmrec.scoring.text_vectors import text_vectors
from allmrec.spark.chunks import by_chunk, hashed, number_of_chunks, numbered_by_activity, partitioned
from allmrec.spark.progress import counting
from allmrec.tables.schemas import TABLES
from allmrec.tables.staging import Staging

CHUNKS_PER_SLOT = 8
"""Chunks per task slot in a wave.

More chunks keep slots busier (at most 1/16 of a slot idles); fewer lose less work if the run is killed.
"""
CHUNK_USERS_WITHOUT_LLM = 4096
"""Users per chunk without the LLM. They cost far less than users with it (`scoring.chunk_users`)."""

_SCHEMA = TABLES["recommendations"].schema
STAGED = T.StructType([field for field in _SCHEMA if field.name not in ("run_date", "carried_from")])
"""The staged columns of `recommendations`."""
_SCORED = T.StructType([field for field in STAGED if field.name != "scored_at"]).add("chunk", T.IntegerType())
"""The columns of workers' rows."""


@dataclass(frozen=True)
class Waves:
    """The scoring of one date with one bundle."""

    run: StepRun
    model: WorkerModel
    staging: Staging

    @property
    def context(self) -> Context:
        """The context of the run."""
        return self.run.night.context

    def rows(self, users: DataFrame) -> DataFrame:
        """Return the rows of `STAGED` for all `users`.

        `users` has the columns that `CandidateLists.from_frame` reads, last_event_time and inputs_hash. Users
        that the LLM has not read by the deadline get the order without it. Raises SupersededError where a
        newer run works on the date.
        """
        settings = self.context.config.scoring
        asked = users.where("use_llm")
        others = users.where("NOT use_llm")
        num_asked = asked.count()
        num_others = others.count()
        num_llm_chunks = number_of_chunks(num_asked, settings.chunk_users) if num_asked else 0
        num_other_chunks = number_of_chunks(num_others, CHUNK_USERS_WITHOUT_LLM) if num_others else 0
        chunks = numbered_by_activity(asked, settings.chunk_users)
        chunks = chunks.unionByName(hashed(others, num_other_chunks or 1, first=num_llm_chunks))
        chunks = self.run.keep(chunks, StorageLevel.DISK_ONLY)
        of_llm = range(num_llm_chunks)
        without_llm = range(num_llm_chunks, num_llm_chunks + num_other_chunks)
        self._stage(chunks, "users with the LLM", of_llm, self._deadline(), asks_llm=True)
        self._stage(chunks, "users without it", without_llm, deadline=None, asks_llm=False)
        late = sorted(set(of_llm) - self.staging.chunks())
        rows = self.staging.rows()
        return rows.unionByName(self._late_rows(chunks, late)) if late else rows

    def _stage(
        self, chunks: DataFrame, unit: str, numbers: range, deadline: float | None, asks_llm: bool
    ) -> None:
        """Score and stage the missing chunks of `numbers`, wave by wave.

        No wave begins after the `deadline` (Unix time).
        """
        staged = self.staging.chunks() & set(numbers)
        todo = [number for number in numbers if number not in staged]
        if staged:
            self.run.report(f"score: {len(staged):,} of {len(numbers):,} chunks of {unit} are staged already")
        num_users = chunks.where(F.col("chunk").isin(todo)).count() if todo else 0
        with counting(self.context.spark, self.run.report, "score", num_users, unit) as num_done:
            score = scoring(self.model, num_done, self.context.run_id, deadline)
            while todo and (deadline is None or time.time() < deadline):
                self.run.night.require_newest()
                # Computed again for every wave, because a cluster grows with its queue.
                size = CHUNKS_PER_SLOT * self.context.spark.sparkContext.defaultParallelism
                wave = todo[:size]
                todo = todo[size:]
                users = _of(chunks, wave)
                llm = self.context.config.llm
                rows = with_llm(users, score, _SCORED, llm) if asks_llm else users.mapInPandas(score, _SCORED)
                rows = rows.withColumn("scored_at", F.current_timestamp())
                self.staging.add(rows, f"{self.context.run_id}-{wave[0]}")

    def _late_rows(self, chunks: DataFrame, late: list[int]) -> DataFrame:
        """Return rows of chunks after the deadline, ordered without the LLM."""
        users = _of(chunks, late)
        with counting(
            self.context.spark, self.run.report, "score", users.count(), "users after the deadline"
        ) as n:
            score = scoring(self.model, n, self.context.run_id, deadline=None, is_late=True)
            rows = users.mapInPandas(score, _SCORED).withColumn("scored_at", F.current_timestamp())
            rows = self.run.keep(rows.drop("chunk"), StorageLevel.DISK_ONLY)
            rows.count()
        return rows

    def _deadline(self) -> float | None:
        """Return the Unix time when the LLM must stop, or None."""
        ends = [self.context.latest_end(), deadline_of(self.run.night)]
        return min((end.timestamp() for end in ends if end is not None), default=None)


def deadline_of(night: Night) -> datetime | None:
    """Return the time of `scoring.deadline` on the run date (UTC). None if it is not set.

    A run that begins on a later day has no deadline, because it is late or a backfill.
    """
    setting = night.context.config.scoring.deadline
    if setting is None or night.context.started_at.date() > night.run_date:
        return None
    return datetime.combine(night.run_date, datetime.strptime(setting, "%H:%M").time(), timezone.utc)


def scoring(
    model: WorkerModel,
    num_done: Accumulator[int],
    run_id: str,
    deadline: float | None,
    is_late: bool = False,
) -> Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Return the function for `mapInPandas` that scores chunks of users.

    `num_done` counts the users. A chunk that begins after the `deadline` (Unix time) gives no rows. With
    `is_late` it gives the order without the LLM, and the deadline as the reason.
    """
    settings = model.config.scoring

    def score(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for users in by_chunk(batches):
            use_llm = bool(users["use_llm"].iat[0])
            if deadline is not None and time.time() >= deadline:
                continue
            scorer = model.scorer(use_llm and not is_late)
            lists = scorer.score(CandidateLists.from_frame(users))
            if is_late:
                lists = replace(lists, llm_failures=np.full(len(lists), "deadline", dtype=object))
            order = served_order(scorer.bundle.blends, settings)
            vectors_of = partial(text_vectors, scorer.bundle)
            rows = ranked_rows(lists, order, settings.top_k, model.config.seed, vectors_of)
            num_done.add(len(users))
            yield rows.assign(**_of_chunk(users, rows), bundle_id=model.bundle_id, run_id=run_id)

    return score


def _of_chunk(users: pd.DataFrame, rows: pd.DataFrame) -> Mapping[str, object]:
    """Return the columns of a chunk's rows that its users carry."""
    hashes = users.set_index("user_id")["inputs_hash"]
    return {"inputs_hash": rows["user_id"].map(hashes), "chunk": users["chunk"].iat[0]}


def _of(chunks: DataFrame, numbers: list[int]) -> DataFrame:
    """Return the users of some chunks, each chunk in one partition."""
    return partitioned(chunks.where(F.col("chunk").isin(numbers)), len(numbers))

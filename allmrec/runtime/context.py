"""One run of one command: Spark's session, the tables, the configuration, and where it reports to."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from pyspark.sql import SparkSession

from allmrec.config import Config
from allmrec.reporting import Report
from allmrec.tables.cached_frames import CachedFrames
from allmrec.tables.delta import Tables


@dataclass(frozen=True)
class Context:
    """What every step is given; as a context manager it releases the run's cached frames at the end."""

    spark: SparkSession
    config: Config
    report: Report
    run_id: str
    tables: Tables
    frames: CachedFrames
    """Frames that all steps of the run read; a step's own frames belong to its `StepRun`."""

    @classmethod
    def open(cls, spark: SparkSession, config: Config, report: Report) -> Context:
        """Return the context of a new run on the tables below `tables.root`."""
        return cls(spark, config, report, new_run_id(), Tables(spark, config.tables.root), CachedFrames())

    def with_new_run(self) -> Context:
        """Return this context under a new run_id; the cached frames are shared."""
        return replace(self, run_id=new_run_id())

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *error: object) -> None:
        self.frames.__exit__(*error)


def new_run_id() -> str:
    """Return a run's name: its start in UTC, and letters that no other run has."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"

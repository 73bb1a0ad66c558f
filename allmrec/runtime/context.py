"""One run of a command: session, tables, configuration and report."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

from pyspark.sql import SparkSession

from allmrec.config import Config, TablesConfig
from allmrec.ranking.rerankers import require_known
from allmrec.reporting import Report
from allmrec.runtime.listeners import check_listeners
from allmrec.spark.cached_frames import CachedFrames
from allmrec.tables.delta import Tables


@dataclass(frozen=True)
class RunOptions:
    """Options of one run on the command line."""

    force: bool = False
    """Repeat finished steps."""
    refresh: bool = False
    """Read the newest versions of the input tables instead of the date's pinned ones."""
    full: bool = False
    """Score all users, also those whose list could be kept."""
    max_minutes: float | None = None
    """Minutes after which the LLM reads no further user."""
    override: frozenset[str] = frozenset()
    """Rules of the section `gates` that may be broken."""


@dataclass(frozen=True)
class Context:
    """The arguments of every step.

    As a context manager it releases the run's cached frames at the end.
    """

    spark: SparkSession
    config: Config
    report: Report
    run_id: str
    tables: Tables
    frames: CachedFrames
    """Frames that all steps of the run read. Frames of one step belong to its `StepRun`."""
    options: RunOptions = RunOptions()
    order: int = 0
    """The run's number among those of its date. Only the run with the highest may write (`runtime.night`)."""
    commits: Iterator[int] = field(default_factory=itertools.count)
    """The numbers of the run's commits, distinct and from `order` on."""
    records: dict[date, tuple[int, list[Any]]] = field(default_factory=dict)
    """Rows of `runs` by run date, with the version of the table that has them (`allmrec.runtime.night`)."""
    said: set[str] = field(default_factory=set)
    """Warnings that were printed, so that each is printed once, also in a backfill."""

    @classmethod
    def open(
        cls, spark: SparkSession, config: Config, report: Report, options: RunOptions = RunOptions()
    ) -> Context:
        """Return the context of a new run on the tables below `tables.root`.

        Raises ConfigError for an unknown schema `tables.schema_name`, and for an unknown name
        in `scoring.rerankers` or `reporting.listeners`.
        """
        require_known(config.scoring)
        check_listeners(config.reporting.listeners)
        tables = Tables(spark, config.tables.root, config.tables.schema_name)
        return cls(spark, config, report, "", tables, CachedFrames(), options).with_new_run()

    def with_new_run(self, after: int = 0) -> Context:
        """Return this context as a new run, ordered after the run `after`. Cached frames are shared."""
        order = max(time.time_ns(), after + 1)
        run_id = new_run_id()
        return replace(
            self,
            run_id=run_id,
            order=order,
            commits=itertools.count(order),
            report=self.report.of(run_id=run_id),
        )

    @property
    def started_at(self) -> datetime:
        """When the run began, UTC."""
        return datetime.fromtimestamp(self.order / 1e9, timezone.utc)

    def with_resolved_dtype(self) -> Context:
        """Return this context with the number type that `llm.dtype: auto` means here.

        The driver resolves it once for all workers. On a mixed cluster each worker would choose its own, and
        the rows would depend on the worker.
        """
        # Imported here, because a command that asks no model needs no torch.
        from allmrec.llm.frozen import resolved_dtype
        from allmrec.runtime.workers import executors_have_gpus

        dtype = resolved_dtype(self.config.llm, on_gpu=executors_have_gpus(self.spark))
        llm = self.config.llm.model_copy(update={"dtype": dtype})
        return replace(self, config=self.config.model_copy(update={"llm": llm}))

    def at_root(self, root: str) -> Context:
        """Return this context on the tables below another `tables.root`."""
        config = self.config.model_copy(update={"tables": TablesConfig(root=root)})
        return replace(self, config=config, tables=Tables(self.spark, root), records={})

    def latest_end(self) -> datetime | None:
        """Return when `--max-minutes` are over; None without a limit."""
        minutes = self.options.max_minutes
        return None if minutes is None else self.started_at + timedelta(minutes=minutes)

    def warn_once(self, line: str) -> None:
        """Report a line `warning: …`, once per command."""
        if line not in self.said:
            self.said.add(line)
            self.report(f"warning: {line}")

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *error: object) -> None:
        self.frames.__exit__(*error)


def new_run_id() -> str:
    """Return a run's unique name: its start in UTC and random letters."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"

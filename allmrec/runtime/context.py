"""What every step is given: the session, the tables, the configuration, and the versions of the input tables it reads."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import Config
from allmrec.data.interactions import split_rejected
from allmrec.data.items import COLUMNS as ITEM_COLUMNS
from allmrec.data.items import tagged_items
from allmrec.errors import InputError
from allmrec.tables.delta import Tables

INPUT_TABLES = ("interactions", "items", "users")


def new_run_id() -> str:
    """Return a run's name: its start in UTC, and letters that no other run has."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


@dataclass
class Context:
    """One run of one command. `versions` is fixed at the first look, so that all steps of a night read the same inputs."""

    spark: SparkSession
    config: Config
    report: Callable[[str], None]
    run_id: str = field(default_factory=new_run_id)
    tables: Tables = field(init=False)
    _versions: dict[str, int] | None = None
    _catalogues: dict[int, DataFrame] = field(default_factory=dict)
    _kept: list[DataFrame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = Tables(self.spark, self.config.tables.root)

    @property
    def versions(self) -> dict[str, int]:
        """Version of every input table that exists, as of the first look of this run."""
        if self._versions is None:
            self._versions = {
                name: self.tables.version(name)
                for name in INPUT_TABLES
                if name != "users" or self.tables.exists(name)
            }
        return self._versions

    def pin(self, versions: dict[str, int]) -> None:
        """Read the input tables at these versions from now on."""
        self._versions = dict(versions)

    def catalogue(self, version: int | None = None) -> tuple[DataFrame, DataFrame]:
        """Return (good items, rejected rows) of the items table at a version (this run's by default), cleaned once a run."""
        version = self.versions["items"] if version is None else version
        if version not in self._catalogues:
            self._catalogues[version] = tagged_items(self.tables.read("items", version)).persist()
        return split_rejected(self._catalogues[version], "items", ITEM_COLUMNS)

    def keep(self, frame: DataFrame) -> DataFrame:
        """Return `frame`, computed once and kept until the step ends (`release`)."""
        self._kept.append(frame.persist())
        return frame

    def release(self) -> None:
        """Drop what `keep` kept."""
        while self._kept:
            self._kept.pop().unpersist()

    def read_input(self, name: str) -> DataFrame | None:
        """Return an input table at this run's version; None only for `users` where there is none."""
        return self.tables.read(name, self.versions[name]) if name in self.versions else None

    def require(self, name: str) -> DataFrame:
        """Return an input table at this run's version; raises TableError where there is none."""
        return self.tables.read(name, self.versions.get(name))


def day_after_last_event(context: Context) -> date:
    """Return the first run_date (UTC) that sees every event of the log; events in the future of this machine's clock do not count.

    Raises InputError: the log has no event with a time.
    """
    now = datetime.now(timezone.utc)
    last = (
        context.require("interactions")
        .where(F.col("event_time") <= F.lit(now))
        .agg(F.max("event_time").cast("date"))
        .first()
    )
    if last is None or last[0] is None:
        raise InputError(
            "interactions: no event with a time, expected at least one; import a log first (allmrec import …)"
        )
    return last[0] + timedelta(days=1)


class Stopwatch:
    """Names what is being done, reports it with its duration, and keeps the seconds of each part for `runs.timings`."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report, self.seconds = report, {}  # type: tuple[Callable[[str], None], dict[str, float]]

    def __call__(self, name: str, purpose: str) -> _Part:
        """Return a context manager that times the part `name`; `purpose` says to a person what it is for."""
        return _Part(self, name, purpose)


class _Part:
    def __init__(self, watch: Stopwatch, name: str, purpose: str) -> None:
        self.watch, self.name, self.purpose = watch, name, purpose

    def __enter__(self) -> None:
        self.watch.report(f"{self.name}: {self.purpose}")
        self.start = time.monotonic()

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.watch.seconds[self.name] = seconds = round(time.monotonic() - self.start, 1)
        if kind is None:
            self.watch.report(f"{self.name}: done in {seconds:.1f} s")

"""The small shop that every case gets a copy of, and what nights leave there when nobody disturbs them."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from datetime import time as time_of_day
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from pyspark.sql import SparkSession

from allmrec.config import Config, load
from allmrec.demo.generator import write_shop
from allmrec.night import waves
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.night import Night
from allmrec.steps.demo import import_shop
from allmrec.steps.nightly import run_backfill
from allmrec.steps.train import run_train
from tests.chaos.faults import Faults, Write
from tests.steps.conftest import LAST_DAY, RUN_DATE, SMALL, TRAINED_BEFORE
from tests.steps.reading import rows
from tests.tiny_models import make_tiny_llm

TRAINED, ONE_NIGHT = "trained", "one_night"
"""What a copy begins with: imported and trained; and the night of `LAST_DAY` beside it."""
SETTINGS = (
    *SMALL,
    "spark.master=local[2]",
    "spark.driver_memory=1g",
    # Many small chunks: a kill finds some of them staged and others not.
    "scoring.chunk_users=4",
    "scoring.active_within_days=null",
)
NOON = time_of_day(12, tzinfo=timezone.utc)
CHUNKS_PER_SLOT = 3
"""In one process; a night has several waves then, also with so few users."""


@dataclass(frozen=True)
class Work:
    """What is asked of a run: the nights of some dates, in a copy of a base."""

    base: str
    first: date
    last: date
    full: bool = False

    @property
    def dates(self) -> list[date]:
        return [self.first + timedelta(days=day) for day in range((self.last - self.first).days + 1)]

    def __str__(self) -> str:
        days = f"{self.first:%m-%d}" if self.first == self.last else f"{self.first:%m-%d}..{self.last:%m-%d}"
        return f"{days}{' full' if self.full else ''} on {self.base}"


def night(base: str, run_date: date, full: bool = False) -> Work:
    """Return the work of one date."""
    return Work(base, run_date, run_date, full)


FIRST_NIGHT = night(TRAINED, RUN_DATE)
"""Everybody is scored, all tables are made."""
NEXT_NIGHT = night(ONE_NIGHT, RUN_DATE)
"""Lists of the night of `LAST_DAY` are kept."""
BACKFILL = Work(ONE_NIGHT, TRAINED_BEFORE, LAST_DAY - timedelta(days=1))
"""Two dates before the night of `LAST_DAY`: what they keep depends neither on it nor on a later one."""


class Undisturbed(NamedTuple):
    """What a work leaves where nothing goes wrong."""

    root: Path
    writes: list[Write]
    """In order."""
    seconds: float


@dataclass
class Shop:
    """The folder of the shop: bases, references and the cases' copies; the LLM and the cache are shared."""

    spark: SparkSession
    folder: Path
    place: Path
    """Where copies go: a folder of the case at work."""
    overrides: tuple[str, ...] = ()
    _undisturbed: dict[Work, Undisturbed] = field(default_factory=dict)

    def settings(self, root: Path) -> list[str]:
        """Return what `--set` is given for tables in `root`."""
        shared = [f"llm.model={self.folder / 'tiny_llm'}", f"cache.folder={self.folder / 'cache'}"]
        return [*SETTINGS, *self.overrides, f"tables.root={root}", *shared]

    def config(self, root: Path) -> Config:
        return load([], self.settings(root))

    @contextlib.contextmanager
    def context(self, root: Path, report: Report | None = None, full: bool = False) -> Iterator[Context]:
        """Yield the context of a fresh command, with a session of its own: a session has one run's marks."""
        options = RunOptions(full=full)
        session = self.spark.newSession()
        with Context.open(session, self.config(root), report or Report(), options) as context:
            yield context

    def run(self, work: Work, root: Path, report: Report | None = None) -> None:
        """Do the work in the warm session; raises what the nights raise."""
        with self.context(root, report, work.full) as context:
            run_backfill(context, work.first, work.last)

    def copy(self, base: str, place: Path | None = None) -> Path:
        """Return the tables' root of a new copy of a base."""
        root = (place or self.place) / uuid.uuid4().hex[:8]
        shutil.copytree(self.folder / base, root)
        return root

    def undisturbed(self, work: Work) -> Undisturbed:
        """Return what the work leaves where nothing goes wrong; it is done once."""
        if work not in self._undisturbed:
            root = self.copy(work.base, self.folder / "references")
            faults, start = Faults(), time.monotonic()
            with faults.injected():
                self.run(work, root)
            self._undisturbed[work] = Undisturbed(root, faults.writes, time.monotonic() - start)
        return self._undisturbed[work]


@contextlib.contextmanager
def several_waves(chunks_per_slot: int = CHUNKS_PER_SLOT) -> Iterator[None]:
    """Let nights of this process score in several waves."""
    with patch.object(waves, "CHUNKS_PER_SLOT", chunks_per_slot):
        yield


def add_events(shop: Shop, root: Path, *events: dict[str, object]) -> None:
    """Add events to the log, as others do; what is not given is as in a good event before every run date."""
    usual = {"user_id": "user-00001", "event_time": datetime(2026, 5, 20, 10, tzinfo=timezone.utc)}
    with shop.context(root) as context:
        for event in events:
            context.tables.append("interactions", {**usual, **event})


def make_shop(spark: SparkSession, folder: Path, num_users: int = 48, num_items: int = 80) -> Shop:
    """Return a new shop: generated, imported, trained with a tiny random LLM, and run for one night."""
    shop = Shop(spark, folder, folder / "cases")
    make_tiny_llm(folder / "tiny_llm")
    files = folder / "files"
    write_shop(files, num_users, num_items, seed=7, last_day=LAST_DAY)
    with shop.context(folder / TRAINED) as context:
        import_shop(context, files)
        run_train(Night(context, TRAINED_BEFORE))
    # An import rejects what is bad; these came into the log by another way, and the next night rejects them.
    add_events(shop, folder / TRAINED, {"item_id": "no such item"}, {"item_id": ""})
    shutil.copytree(folder / TRAINED, folder / ONE_NIGHT)
    shop.run(night(ONE_NIGHT, LAST_DAY), folder / ONE_NIGHT)
    # Some users change after that night, so that the next one has lists to keep and lists to score.
    item, noon = rows(folder / ONE_NIGHT, "items")["item_id"].min(), datetime.combine(LAST_DAY, NOON)
    bought = [
        {"user_id": f"user-{number:05}", "item_id": item, "event_time": noon} for number in range(1, 13)
    ]
    add_events(shop, folder / ONE_NIGHT, {"item_id": "another one"}, *bought)
    return shop

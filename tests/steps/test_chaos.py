"""The short form of `python -m tests.chaos`: a few nights that are killed, and a pair at the same time."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.bench.compare import NIGHTLY
from tests.chaos.injected import injected_kills
from tests.chaos.shop import TRAINED, Shop, add_events, night, several_waves
from tests.chaos.signals import Moment, hit_and_run_again, kill_driver_and_jvm
from tests.chaos.thread_pairs import two_threads
from tests.steps.conftest import RUN_DATE

SEED = 20261125
TONIGHT = night(TRAINED, RUN_DATE, full=True)


@pytest.fixture(scope="module")
def small_shop(shop: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop as it was before its night, with bad events in the log, for nights of several waves."""
    folder = tmp_path_factory.mktemp("chaos")
    for name in ("tiny_llm", "cache"):
        (folder / name).symlink_to(shop.parent / name)
    shutil.copytree(
        shop, folder / TRAINED, ignore=shutil.ignore_patterns(*NIGHTLY, "rejected_rows", "_staging")
    )
    spark.sql(f"DELETE FROM delta.`{folder / TRAINED / 'runs'}` WHERE step <> 'train'")
    few = ("scoring.active_within_days=7", "scoring.chunk_users=4")
    small = Shop(spark, folder, folder / "cases", few)
    add_events(small, folder / TRAINED, {"item_id": "no such item"})
    with several_waves(chunks_per_slot=1):
        yield small


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.long) for number in (1, 2))])
def test_a_night_killed_at_a_write_is_right_after_a_rerun(small_shop: Shop, number: int) -> None:
    injected_kills(small_shop, 3, random.Random(SEED), works=(TONIGHT,))[number].do()


@pytest.mark.long
def test_a_night_whose_driver_and_jvm_are_killed_is_right_after_a_rerun(small_shop: Shop) -> None:
    moment = Moment(random.Random(SEED).randrange(2, 20), seconds=0.1)
    hit_and_run_again(small_shop, TONIGHT, lambda one: kill_driver_and_jvm(one, moment))


def test_of_two_nights_of_one_date_at_once_one_wins(small_shop: Shop) -> None:
    two_threads(small_shop, (TONIGHT, TONIGHT), delay=0.0)

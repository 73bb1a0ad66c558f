"""A small shop on real parts: generated, imported, trained and run for one night, with a tiny random LLM."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pyspark.sql import SparkSession

from allmrec import metrics
from allmrec.config import Config, load
from allmrec.demo.generator import write_shop
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.night import Night
from allmrec.steps import candidates
from allmrec.steps.demo import import_shop
from allmrec.steps.nightly import run_nightly
from allmrec.steps.train import run_train
from tests.tiny_models import make_tiny_llm

LAST_DAY = date(2026, 5, 31)
RUN_DATE = date(2026, 6, 1)
TRAINED_BEFORE = date(2026, 5, 29)
NewContext = Callable[..., Context]
SMALL = [
    "cf.width=16",
    "cf.epochs=3",
    "stage1.epochs=1",
    "stage1.width=16",
    "stage2.warm_start_steps=20",
    "stage2.max_examples=8",
    "stage2.evaluate_every=2",
    "stage2.evaluation_users=4",
    "training.blend_llm_users=8",
    "training.num_threads=1",
    "llm.dtype=float32",
    "prompt.history_items=3",
    "prompt.title_tokens=4",
    "scoring.chunk_users=16",
    "scoring.order=blend_with_llm",
    "evaluation.num_sampled_users=30",
    "spark.shuffle_partitions=2",
]


def settings(folder: Path) -> list[str]:
    """Return the test configuration as overrides, with tables in `folder`, LLM and cache beside it."""
    return [
        *SMALL,
        f"tables.root={folder}",
        f"llm.model={folder.parent / 'tiny_llm'}",
        f"cache.folder={folder.parent / 'cache'}",
    ]


def small_config(folder: Path, *overrides: str) -> Config:
    """Return the test configuration; the tiny LLM is made where it is missing."""
    if not (folder.parent / "tiny_llm").is_dir():
        make_tiny_llm(folder.parent / "tiny_llm")
    return load([], [*settings(folder), *overrides])


def asked(context: Context, **options: Any) -> Context:
    """Return the context of a run with these options of the command line, such as `refresh=True`."""
    return Context.open(context.spark, context.config, context.report, RunOptions(**options))


def copied_shop(shop: Path, folder: Path) -> Path:
    """Copy the shop's tables, LLM and cache into `folder` and return the folder of the copied tables."""
    for name in ("tables", "cache", "tiny_llm"):
        shutil.copytree(shop.parent / name, folder / name)
    return folder / "tables"


@pytest.fixture(scope="session", autouse=True)
def _small_constants() -> Iterator[None]:
    """Constants for a shop of 160 users: several chunks of candidates, and few resamples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "CHUNK_USERS", 64)
        patch.setattr(metrics, "BOOTSTRAP_SAMPLES", 50)
        yield


@pytest.fixture(scope="session")
def new_context(spark: SparkSession) -> Iterator[NewContext]:
    """A function that makes the context of a fresh run on a folder of tables, with overridden settings."""
    with ExitStack() as runs:

        def new(folder: Path, *overrides: str) -> Context:
            return runs.enter_context(Context.open(spark, small_config(folder, *overrides), Report()))

        yield new


@pytest.fixture(scope="session")
def shop(new_context: NewContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a shop after one night; tests that write copy them first (`copy_of_shop`).

    Of several test processes the first one makes it.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / "shop.lock"):
        if not (base / "shop").is_dir():
            make_shop(new_context, base / "shop in the making")
            (base / "shop in the making").rename(base / "shop")
    return base / "shop" / "tables"


def make_shop(new_context: NewContext, folder: Path) -> None:
    """Generate, import and train a shop in `folder`, and run its first night."""
    tables, files = folder / "tables", folder / "files"
    write_shop(files, 160, 120, seed=7, last_day=LAST_DAY)
    context = new_context(tables)
    import_shop(context, files)
    run_train(Night(context, TRAINED_BEFORE))
    run_nightly(new_context(tables), RUN_DATE)


@pytest.fixture
def copy_of_shop(shop: Path, tmp_path: Path) -> Path:
    """A private copy of the shop's tables, with the same LLM and cache beside it."""
    return copied_shop(shop, tmp_path)

"""Workers of a local session are forked off with everything imported."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator

import pandas as pd
import pytest
import torch  # noqa: F401, a process that has it
from pyspark.sql import SparkSession

from allmrec.config import SparkConfig
from allmrec.spark import python_daemon, session


def test_a_worker_has_what_scoring_imports_frozen_and_pyspark_from_no_archive(spark: SparkSession) -> None:
    def facts(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """What a worker has before it does any work."""
        for _ in batches:
            yield pd.DataFrame(
                {
                    "modules": [",".join(name for name in ("torch", "transformers") if name in sys.modules)],
                    "frozen": [gc.get_freeze_count()],
                    "archives": [sum(path.endswith("pyspark.zip") for path in sys.path)],
                    "waiting": [os.environ.get("OMP_WAIT_POLICY", "")],
                }
            )

    rows = spark.range(2).mapInPandas(facts, "modules string, frozen long, archives int, waiting string")
    for row in rows.collect():
        assert "torch" in row["modules"].split(","), "a worker that loaded an LLM before has transformers too"
        assert row["frozen"] > 10_000
        assert row["archives"] == 0
        assert row["waiting"] == "passive"


def test_only_a_local_master_gets_the_daemon_and_only_a_process_with_torch_preloads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "spark.python.daemon.module"
    preloaded = f"spark.executorEnv.{python_daemon.PRELOADED}"
    local = session._settings(SparkConfig(master="local[1]"), "test")
    assert (local[name], local[preloaded]) == (python_daemon.MODULE, "allmrec.runtime.workers")
    assert not {name, preloaded} & set(session._settings(SparkConfig(master="spark://host:7077"), "test"))
    own = session._settings(SparkConfig(master="local[1]", settings={name: "mine"}), "test")
    assert own[name] == "mine"
    monkeypatch.delitem(sys.modules, "torch")
    assert preloaded not in session._settings(SparkConfig(master="local[1]"), "test")

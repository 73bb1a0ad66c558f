"""The rows of `runs`: a run knows its own without reading them again, and sees those of others."""

from __future__ import annotations

import datetime as dt
from unittest.mock import patch

from pyspark.sql import SparkSession

from allmrec.config import load
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night, Step
from allmrec.tables.delta import Tables

DAY = dt.date(2026, 6, 1)


def new_night(spark: SparkSession, tables: Tables) -> Night:
    config = load([], [f"tables.root={tables.root}"])
    return Night(Context.open(spark, config, Report(lambda line: None)), DAY)


def do_a_step(night: Night, step: str) -> None:
    with Step(night, step, "f" * 16).recorded({"items": 3}, {}) as work:
        work.counts, work.figures = {"users_in": 2}, {"loss": 0.5}


def test_a_run_knows_its_own_rows_as_others_read_them(spark: SparkSession, tables: Tables) -> None:
    own = new_night(spark, tables)
    do_a_step(own, "sequences")
    assert len(own.records()) == 2
    do_a_step(own, "candidates")
    with patch.object(Tables, "read", side_effect=AssertionError("read again")):
        known = own.records()
    assert sorted(known, key=str) == sorted(new_night(spark, tables).records(), key=str)
    assert len(known) == 4


def test_a_run_sees_what_another_one_recorded_between_its_own_rows(
    spark: SparkSession, tables: Tables
) -> None:
    own, other = new_night(spark, tables), new_night(spark, tables)
    do_a_step(own, "sequences")
    assert own.latest("score") is None
    do_a_step(other, "score")
    do_a_step(own, "candidates")
    found = own.latest("score")
    assert found is not None
    assert found.run_id == other.context.run_id

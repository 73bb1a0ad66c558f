"""The rows of `runs`: a run knows its own without reading them again, and sees those of others."""

from __future__ import annotations

import datetime as dt
from unittest.mock import patch

from pyspark.sql import SparkSession

from allmrec.config import load
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.runtime.runs import latest, of_date, recorded
from allmrec.tables.delta import Tables

DAY = dt.date(2026, 6, 1)


def context(spark: SparkSession, tables: Tables) -> Context:
    return Context.open(spark, load([], [f"tables.root={tables.root}"]), Report(lambda line: None))


def do_a_step(run: Context, step: str) -> None:
    with recorded(run, step, DAY, "f" * 16, {"items": 3}, {}) as work:
        work.counts, work.figures = {"users_in": 2}, {"loss": 0.5}


def test_a_run_knows_its_own_rows_as_others_read_them(spark: SparkSession, tables: Tables) -> None:
    own = context(spark, tables)
    do_a_step(own, "sequences")
    assert len(of_date(own, DAY)) == 2
    do_a_step(own, "candidates")
    with patch.object(Tables, "read", side_effect=AssertionError("read again")):
        known = of_date(own, DAY)
    assert sorted(known, key=str) == sorted(of_date(context(spark, tables), DAY), key=str)
    assert len(known) == 4


def test_a_run_sees_what_another_one_recorded_between_its_own_rows(
    spark: SparkSession, tables: Tables
) -> None:
    own, other = context(spark, tables), context(spark, tables)
    do_a_step(own, "sequences")
    assert latest(own, "score", DAY) is None
    do_a_step(other, "score")
    do_a_step(own, "candidates")
    found = latest(own, "score", DAY)
    assert found is not None
    assert found.run_id == other.run_id

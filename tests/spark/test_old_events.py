"""A night whose newest event is years old says so: the run date, or the log, may be another one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.spark.test_advance import Shop, at, event


@pytest.mark.parametrize(("days", "is_told"), [(1, False), (366, False), (367, True), (3650, True)])
def test_a_run_date_years_after_the_newest_event_is_told(
    days: int, is_told: bool, spark: SparkSession, tmp_path: Path
) -> None:
    shop = Shop(spark, tmp_path)
    shop.list_items("a")
    shop.sell(event("u", "a", at(10)), event("v", "a", at(9)), event("w", "gone", at(12)))
    run_date = dt.date(2026, 5, 10) + dt.timedelta(days=days)
    shop.night(run_date)
    told = [line for line in shop.said if "warning: the newest event that counts" in line]
    expected = f"is of 2026-05-10, {days:,} days before the run date"
    assert [expected in line for line in told] == ([True] if is_told else [])

"""A shop's own tables in a real catalogue, a Hive metastore on Derby, are read in place, by name.

The log is a Delta table, the items are a Parquet table, the users a view; columns and types are the shop's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.steps.conftest import copied_shop

pytestmark = pytest.mark.long  # a minute and a half: tests/spark/test_in_place.py has the casts and errors

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the nights of `nights_of_catalogue`, run once: a session of its own has the metastore."""
    folder = tmp_path_factory.mktemp("catalogue")
    copied_shop(shop, folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.steps.nights_of_catalogue", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return result


def test_a_night_on_foreign_tables_has_the_histories_of_our_own(found: dict[str, Any]) -> None:
    assert len(found["first"]) > 100
    assert found["first"] == found["expected"]


def test_our_tables_have_names_in_the_catalogue(found: dict[str, Any]) -> None:
    ours = {"user_sequences", "candidates", "recommendations", "email_recommendations"}
    views = {"latest_email_recommendations"}
    assert ours | views | {"feed_recommendations", "rejected_rows", "runs"} == set(found["named"])


def test_the_lists_name_the_shop_s_items_and_nobody_is_lost(found: dict[str, Any]) -> None:
    assert found["recommended"]
    assert set(found["recommended"]) <= set(found["items"])
    counts = found["counts"]
    assert counts["users_in"] == len(found["first"]) == counts["users_out"] + counts["unservable"]


def test_the_record_names_every_table_and_says_which_ones_are_not_pinned(found: dict[str, Any]) -> None:
    versions = found["versions"]
    assert versions.pop("interactions (spark_catalog.sales.orders)") == 0
    assert set(versions) == {"items (sales.products)", "users (sales.customers)"}
    assert max(versions.values()) < -1_700_000_000_000_000
    assert [line for line in found["said"] if "no versions" in line] == [
        f"warning: {name} is no Delta table and has no versions: "
        "a rerun, or a past date, reads it as it stands then"
        for name in ("items: sales.products", "users: sales.customers")
    ]


def test_a_rerun_after_new_events_reads_what_the_first_run_read(found: dict[str, Any]) -> None:
    skipped = [line.split(" ")[0] for line in found["rerun"] if "already there" in line]
    assert skipped == ["sequences", "candidates", "score", "publish"]
    pinned, newest = found["events"]
    assert newest == pinned + 2


def test_the_next_night_reads_the_new_events(found: dict[str, Any]) -> None:
    items, times = found["next"].pop(found["customer"])
    assert items[-2:] == [found["sku"]] * 2
    assert times[-2:] == ["2026-05-31 23:59:59", "2026-06-01 00:00:00"]
    del found["first"][found["customer"]]
    assert found["next"] == found["first"]


def test_a_table_of_the_catalogue_has_a_version_at_a_moment(found: dict[str, Any]) -> None:
    assert found["at"] == [0, 2]


def test_the_doctor_opens_the_three_tables(found: dict[str, Any]) -> None:
    assert [check[:3] for check in found["doctor"]] == [
        ["interactions", True, "spark_catalog.sales.orders, version 0"],
        ["items", True, "sales.products, without versions"],
        ["users", True, "sales.customers, without versions"],
    ]


def test_bad_settings_end_in_one_line_before_anything_is_written(found: dict[str, Any]) -> None:
    lines = found["refusals"]
    assert lines["tables.schema_name"] == (
        "tables.schema_name: list, expected a schema of Spark's catalogue; create it first"
    )
    assert lines["tables.items.table"].startswith(
        "items: sales.product cannot be read: [TABLE_OR_VIEW_NOT_FOUND]"
    )
    assert lines["tables.items.columns"] == (
        "items: no column label in sales.products, which has sku, name, description, shelves, buyable; "
        "name the one for title by tables.items.columns.title"
    )
    assert lines["tables.interactions.where"].startswith(
        "tables.interactions.where: state = 'paid': [UNRESOLVED_COLUMN"
    )
    assert (
        "column ordered_at of spark_catalog.sales.orders is timestamp_ntz, expected for rating"
        in (lines["tables.interactions.columns"])
    )

"""History of tables: what VACUUM leaves, and for how long Delta is told to keep it."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from allmrec.errors import TableError
from allmrec.tables import maintenance
from allmrec.tables.delta import Tables
from allmrec.tables.maintenance import Age

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


def on_disk(tables: Tables, name: str) -> int:
    return len(list(Path(tables.path(name)).rglob("*.parquet"))) - len(
        list(Path(tables.path(name)).glob("_delta_log/*.parquet"))
    )


def test_small_files_are_compacted_and_old_versions_go_only_when_nobody_needs_them(
    spark: SparkSession, tables: Tables
) -> None:
    for user in ("ann", "bob", "cem"):
        tables.append("interactions", {"user_id": user, "item_id": "tent", "event_time": NOON})
    pinned = tables.version("interactions")
    assert maintenance.compact(tables, "interactions", {date(2026, 5, 1)}) == (3, 1)
    assert maintenance.compact(tables, "interactions", set()) == (0, 0)

    maintenance.keep_history(tables, "interactions", 0, maintenance.age(tables, "interactions", pinned))
    assert maintenance.vacuum(tables, "interactions", dry_run=False).num_files == 0
    assert tables.read("interactions", pinned).count() == 3

    maintenance.keep_history(tables, "interactions", 0, None)
    found = maintenance.vacuum(tables, "interactions", dry_run=True)
    assert found.num_files == 3
    assert found.num_bytes > 1000
    assert on_disk(tables, "interactions") == 4
    assert maintenance.vacuum(tables, "interactions", dry_run=False) == found
    assert on_disk(tables, "interactions") == 1
    after = tables.version("interactions")
    assert maintenance.vacuum(tables, "interactions", dry_run=False).num_files == 0
    assert tables.version("interactions") == after, "nothing to do makes no commit"
    with pytest.raises(TableError, match=r"^interactions: .*vacuumed"), tables._explained("interactions"):
        tables.read("interactions", pinned).collect()


def test_rows_go_without_a_commit_that_names_them(spark: SparkSession, tables: Tables) -> None:
    for user in ("ann", "bob"):
        tables.append("users", {"user_id": user})
    assert maintenance.delete_where_in(tables, "users", "user_id", ["nobody"]) == 0
    assert maintenance.delete_where_in(tables, "users", "user_id", ["bob", "nobody"]) == 1
    assert [row[0] for row in tables.read("users").collect()] == ["ann"]
    table = DeltaTable(tables.path("users"))
    assert "bob" not in str(table.history(1))


@pytest.mark.parametrize(
    ("oldest", "hours"),
    [
        (None, {}),
        (Age(timedelta(days=6), timedelta(days=29)), {}),
        (Age(timedelta(days=8), timedelta(days=31)), {"deletedFile": 720, "log": 1440}),
        (Age(timedelta(days=90), timedelta(days=90)), {"deletedFile": 2160, "log": 2160}),
    ],
)
def test_delta_is_told_to_keep_what_is_needed(
    tables: Tables, oldest: Age | None, hours: dict[str, int]
) -> None:
    tables.create("users")
    maintenance.keep_history(tables, "users", 168, oldest)
    version = tables.version("users")
    found = DeltaTable(tables.path("users")).metadata().configuration
    assert found == {f"delta.{name}RetentionDuration": f"interval {n} hours" for name, n in hours.items()}
    maintenance.keep_history(tables, "users", 168, oldest)
    assert tables.version("users") == version, "told once"

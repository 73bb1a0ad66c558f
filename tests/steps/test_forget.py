"""The erasure of a user: gone from tables, old versions, snapshots and caches, and not brought back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from allmrec.errors import InputError, PassingError
from allmrec.night.kept_lists import last_night
from allmrec.runtime.night import Night, Step
from allmrec.steps.forget import run_forget
from allmrec.steps.nightly import run_nightly
from tests.steps.conftest import RUN_DATE, TRAINED_BEFORE, NewContext, asked
from tests.steps.reading import rows, version
from tests.steps.test_contract import NIGHTLY, active_users, buy, content, last_run
from tests.steps.test_maintenance import at_once

OWN = ("interactions", "users", *NIGHTLY, "rejected_rows", "runs")


def naming(folder: Path, user: str) -> Iterator[Path]:
    """The Parquet files in which a user is named, whether a table still has them or not."""
    for path in folder.rglob("*.parquet"):
        if "_delta_log" not in path.parts:
            values = str(pq.ParquetFile(path).read().to_pylist())
            if f"'{user}'" in values or f'"{user}"' in values:
                yield path


def test_a_user_is_gone_from_every_file_and_the_lists_of_others_are_still_kept(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    user, other = active_users(copy_of_shop)[:2]
    buy(spark, copy_of_shop, "2026-05-31 08:00:00", (user, "nothing"))
    run_nightly(asked(new_context(copy_of_shop), refresh=True), RUN_DATE)
    rejected = len(rows(copy_of_shop, "rejected_rows"))
    before = {table: content(copy_of_shop, table) for table in NIGHTLY}
    (copy_of_shop / "_staging" / str(RUN_DATE)).mkdir(parents=True)
    named = {path.relative_to(copy_of_shop).parts[0] for path in naming(copy_of_shop, user)}
    assert named == {"interactions", "users", *NIGHTLY, "rejected_rows", "_snapshots"}

    lines = run_forget(at_once(new_context(copy_of_shop)), user)
    named_first = [line.split(":")[0].split()[0] for line in lines[:-1]]
    assert named_first == [*NIGHTLY, "rejected_rows", "snapshot", "interactions", "users"]
    assert lines[-1].startswith("old versions of these tables contain the rows until ")
    assert list(naming(copy_of_shop, user)) == []
    assert not (copy_of_shop / "_staging").exists()
    assert len(rows(copy_of_shop, "rejected_rows")) == rejected - 1
    assert user not in rows(copy_of_shop, "runs").drop(columns="run_id").to_string()
    for table in NIGHTLY:
        others = before[table][before[table]["user_id"] != user].reset_index(drop=True)
        pd.testing.assert_frame_equal(content(copy_of_shop, table), others, check_exact=True)
    kept = last_night(Night(new_context(copy_of_shop), RUN_DATE + timedelta(days=1)))
    assert kept is not None
    assert kept.rows.where(f"user_id = '{other}'").count()

    run_nightly(asked(new_context(copy_of_shop), force=True), RUN_DATE)
    assert list(naming(copy_of_shop, user)) == [], "a rerun reads no version from before"
    assert set(rows(copy_of_shop, "feed_recommendations")["user_id"]) == set(
        before["feed_recommendations"]["user_id"]
    ) - {user}
    read = dict(last_run(copy_of_shop, "sequences")["input_versions"])["interactions"]
    assert read > dict(last_run(copy_of_shop, "train", day=TRAINED_BEFORE)["input_versions"])["interactions"]


def test_a_table_of_somebody_else_is_not_written_and_its_owner_is_told(
    copy_of_shop: Path, new_context: NewContext
) -> None:
    user = active_users(copy_of_shop)[0]
    theirs = copy_of_shop.parent / "shop_of_somebody" / "users"
    shutil.copytree(copy_of_shop / "users", theirs)
    shutil.rmtree(copy_of_shop / "users")
    before = version(theirs.parent, "users")
    lines = run_forget(new_context(copy_of_shop, f"tables.users.path={theirs}"), user)
    [line] = [line for line in lines if line.startswith("users: ")]
    assert line.startswith(f"users: 1 rows of the user are in {theirs}, which is never written here: delete")
    assert version(theirs.parent, "users") == before
    assert user in set(rows(theirs.parent, "users")["user_id"])
    assert user not in set(rows(copy_of_shop, "interactions")["user_id"])


def test_who_is_nowhere_and_a_step_at_work_are_told_before_anything_is_written(
    shop: Path, copy_of_shop: Path, new_context: NewContext
) -> None:
    before = {table: version(shop, table) for table in OWN}
    with pytest.raises(InputError, match=r"^forget: user .nobody. is in no column user_id"):
        run_forget(new_context(shop), "nobody")
    assert {table: version(shop, table) for table in OWN} == before
    night = new_context(copy_of_shop)
    with Step(Night(night, RUN_DATE), "score", "mark").recorded({}, {}):
        before = {table: version(copy_of_shop, table) for table in OWN}
        with pytest.raises(PassingError, match=rf"^forget: run {night.run_id} \(score of {RUN_DATE}\) began"):
            run_forget(new_context(copy_of_shop), active_users(copy_of_shop)[0])
        assert {table: version(copy_of_shop, table) for table in OWN} == before

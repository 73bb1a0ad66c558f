"""Maintenance of a shop that goes on: what is old goes, and whatever a night may need works afterwards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from allmrec.config import MaintenanceConfig
from allmrec.errors import ConfigError, InputError
from allmrec.runtime.context import Context
from allmrec.steps.maintain import run_maintain
from allmrec.steps.nightly import run_nightly
from tests.steps.conftest import RUN_DATE, NewContext, asked, small_config
from tests.steps.reading import rows, version
from tests.steps.test_contract import NIGHTLY, buy, content, last_run

NEXT = RUN_DATE + timedelta(days=1)
OLD = RUN_DATE - timedelta(days=40)


def at_once(context: Context, **settings: Any) -> Context:
    """The context of a maintenance that waits for nobody: the configuration allows a week at least."""
    section = MaintenanceConfig.model_construct(
        **{"keep_days": 90, "keep_bundles": 3} | settings, vacuum_hours=0
    )
    return replace(context, config=context.config.model_copy(update={"maintenance": section}))


def data_files(root: Path, table: str) -> set[Path]:
    found = set((root / table).rglob("*.parquet"))
    return {path for path in found if "_delta_log" not in path.parts}


def older_bundle(root: Path) -> None:
    """A bundle and a snapshot as a training of long ago left them."""
    [folder] = (root / "_bundles").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    shutil.copytree(folder, root / "_bundles" / "0123456789abcdef")
    shutil.copytree(root / "_snapshots" / manifest["fingerprint"], root / "_snapshots" / "old")
    manifest |= {"bundle_id": "0123456789abcdef", "trained_before": "2026-03-01", "fingerprint": "old"}
    manifest |= {"created_at": "2026-03-01T00:00:00.000000+00:00"}
    (root / "_bundles" / "0123456789abcdef" / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_old_goes_and_a_pinned_rerun_leaves_the_same_rows(
    copy_of_shop: Path, new_context: NewContext, spark: SparkSession
) -> None:
    run_nightly(new_context(copy_of_shop), NEXT)
    for table in ("recommendations", "feed_recommendations"):
        old = spark.read.format("delta").load(str(copy_of_shop / table)).where(f"run_date = '{RUN_DATE}'")
        old = old.drop("run_date").selectExpr("*", f"DATE'{OLD}' AS run_date")
        old.write.format("delta").mode("append").save(str(copy_of_shop / table))
    older_bundle(copy_of_shop)
    (copy_of_shop / "_staging" / str(OLD)).mkdir(parents=True)
    for _ in range(2):
        buy(spark, copy_of_shop, "2026-06-01 08:00:00", ("someone", "nothing"))
    pinned = dict(last_run(copy_of_shop, "sequences", day=NEXT)["input_versions"])["interactions"]
    old_files = set(DeltaTable(str(copy_of_shop / "interactions"), version=pinned).file_uris())
    before = {table: content(copy_of_shop, table, NEXT) for table in NIGHTLY}
    assert before["recommendations"]["carried_from"].notna().any()
    context = at_once(new_context(copy_of_shop), keep_days=1, keep_bundles=1)

    found = {table: version(copy_of_shop, table) for table in (*NIGHTLY, "runs", "interactions")}
    planned = run_maintain(context, dry_run=True)
    assert {table: version(copy_of_shop, table) for table in found} == found
    assert (copy_of_shop / "_bundles" / "0123456789abcdef").is_dir()

    lines = run_maintain(context, dry_run=False)
    rows_of_day = len(rows(copy_of_shop, "recommendations", run_date=str(RUN_DATE)))
    deleted = f"recommendations: {rows_of_day:,} rows of 1 dates ({OLD} to {OLD}) deleted"
    assert deleted in lines
    assert f"{deleted} (dry run: it stays)" in planned
    assert any(line.startswith("bundle 0123456789abcdef: ") for line in lines)
    for table in NIGHTLY:
        dates = {path.parent.name for path in data_files(copy_of_shop, table)}
        assert dates == {f"run_date={RUN_DATE}", f"run_date={NEXT}"}
        current = {Path(uri) for uri in DeltaTable(str(copy_of_shop / table)).file_uris()}
        assert data_files(copy_of_shop, table) == current
    assert len(list((copy_of_shop / "_bundles").iterdir())) == 1
    assert len(list((copy_of_shop / "_snapshots").iterdir())) == 1
    assert not (copy_of_shop / "_staging" / str(OLD)).exists()
    assert len(DeltaTable(str(copy_of_shop / "interactions")).file_uris()) == 1
    assert all(Path(uri).exists() for uri in old_files), "what the night pinned is there"
    run = rows(copy_of_shop, "runs").query("step == 'maintain' and status == 'done'").iloc[0]
    assert dict(run["counts"])["deleted_bundles"] == 1

    run_nightly(asked(new_context(copy_of_shop), force=True), NEXT)
    for table in NIGHTLY:
        pd.testing.assert_frame_equal(content(copy_of_shop, table, NEXT), before[table], check_exact=True)
    assert dict(last_run(copy_of_shop, "sequences", day=NEXT)["input_versions"])["interactions"] == pinned


def test_what_is_asked_wrong_is_told_before_anything_is_written(
    tmp_path: Path, new_context: NewContext
) -> None:
    with pytest.raises(ConfigError, match=r"maintenance.vacuum_hours: .*24.*168"):
        small_config(tmp_path / "tables", "maintenance.vacuum_hours=24")
    with pytest.raises(
        InputError, match=r"^maintain: no table below .*/tables, expected one; set tables.root"
    ):
        run_maintain(new_context(tmp_path / "tables"), dry_run=False)
    assert not (tmp_path / "tables").exists()

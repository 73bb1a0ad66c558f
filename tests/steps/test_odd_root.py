"""A shop below a folder whose name has the signs of a pattern and of a URL: every step works there."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from allmrec.data.snapshot import count_user, snapshot_names
from allmrec.runtime.night import Night
from allmrec.steps.forget import run_forget
from allmrec.steps.maintain import run_maintain
from allmrec.steps.nightly import run_nightly
from allmrec.steps.train import run_train
from tests.steps.conftest import RUN_DATE, NewContext
from tests.steps.reading import rows

# The test takes four minutes on a busy machine.
# tests/spark/test_odd_paths.py has the reads and writes of every step.
pytestmark = [pytest.mark.reported, pytest.mark.long]

NAME = "shop [1] {a,b}*#?"
NEXT = RUN_DATE + timedelta(days=1)


def test_training_nights_erasure_and_maintenance_work_below_any_folder(
    shop: Path, tmp_path: Path, new_context: NewContext
) -> None:
    for name in ("cache", "tiny_llm"):
        shutil.copytree(shop.parent / name, tmp_path / name)
    root = tmp_path / NAME
    shutil.copytree(shop, root)
    (tmp_path / "shop 1 a").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    bundle_id = run_train(Night(new_context(root), RUN_DATE))
    run_nightly(new_context(root), NEXT)
    found = rows(root, "recommendations", run_date=str(NEXT))
    assert set(found["bundle_id"]) == {bundle_id}
    assert len(found) == len(rows(shop, "recommendations", run_date=str(RUN_DATE)))
    user = found["user_id"].iloc[0]
    context = new_context(root)
    snapshots = [f"{root}/_snapshots/{name}" for name in snapshot_names(context.spark, str(root))]
    assert len(snapshots) == 2
    assert sum(count_user(context.spark, uri, user) for uri in snapshots) > 0
    run_forget(context, user)
    assert sum(count_user(context.spark, uri, user) for uri in snapshots) == 0
    assert user not in set(rows(root, "recommendations", run_date=str(NEXT))["user_id"])
    run_maintain(new_context(root), dry_run=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == before

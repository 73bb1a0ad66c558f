"""Nights of a small demo shop, maintained: files, bytes and seconds, then a pinned rerun.

    python -m tests.bench.bench_maintenance FOLDER [NIGHTS]

FOLDER is empty, and holds the shop afterwards. NIGHTS is 30 by default; half of them stay. The shop is
generated, imported and trained with a tiny random LLM; the nights run in order, with a new event before each,
without asking the LLM. VACUUM waits for nobody here. The newest night is then run again on its pinned
versions, and its rows compared.
"""

from __future__ import annotations

import sys
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from allmrec.config import SparkConfig
from allmrec.demo.generator import write_shop
from allmrec.reporting import Report
from allmrec.runtime.context import Context, RunOptions
from allmrec.runtime.night import Night
from allmrec.spark.session import create_session
from allmrec.steps.demo import import_shop
from allmrec.steps.maintain import run_maintain
from allmrec.steps.nightly import run_nightly
from allmrec.steps.train import run_train
from tests.conftest import QUICK_SQL
from tests.steps.conftest import small_config
from tests.steps.test_contract import NIGHTLY, content
from tests.steps.test_maintenance import at_once

LAST_DAY = date(2026, 5, 31)


def main(folder: Path, num_nights: int) -> None:
    """Run, measure and compare."""
    root = folder / "tables"
    config = small_config(root, "scoring.order=cf")
    session = create_session(
        SparkConfig(master="local[2]", driver_memory="3g", shuffle_partitions=2, settings=QUICK_SQL), "bench"
    )

    def new(force: bool = False) -> Context:
        return Context.open(session, config, Report(), RunOptions(force=force))

    first = LAST_DAY - timedelta(days=num_nights - 1)
    write_shop(folder / "files", 160, 120, seed=7, last_day=LAST_DAY)
    import_shop(new(), folder / "files")
    run_train(Night(new(), first))
    started = time.monotonic()
    for day in (first + timedelta(days=number) for number in range(num_nights)):
        moment = datetime.combine(day, datetime.min.time(), timezone.utc) - timedelta(hours=1)
        event = {"user_id": "user-00012", "item_id": "OUT-0045", "event_time": moment}
        new().tables.append("interactions", event)
        run_nightly(new(), day)
    print(f"{num_nights} nights: {time.monotonic() - started:.0f} s")
    before = {table: content(root, table, LAST_DAY) for table in NIGHTLY}
    show("before", root)
    for times in ("first", "second"):
        started = time.monotonic()
        lines = run_maintain(at_once(new(), keep_days=num_nights // 2), dry_run=False)
        print(f"{times} maintain: {time.monotonic() - started:.0f} s", *lines, sep="\n  ")
        show(f"after the {times}", root)
    run_nightly(new(force=True), LAST_DAY)
    for table in NIGHTLY:
        assert content(root, table, LAST_DAY).equals(before[table]), f"{table} has other rows"
    print("the pinned rerun after VACUUM left the same rows")
    session.stop()


def show(when: str, root: Path) -> None:
    """Print the files and bytes of the tables, and of their logs."""
    files = [path for path in root.glob("[!_]*/**/*") if path.is_file()]
    data = [path for path in files if "_delta_log" not in path.parts]
    num_bytes = sum(path.stat().st_size for path in data)
    log_bytes = sum(path.stat().st_size for path in files) - num_bytes
    print(
        f"{when}: {len(data):,} data files, {num_bytes / 1e6:.2f} MB; "
        f"{len(files) - len(data):,} files of logs, {log_bytes / 1e6:.2f} MB",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 30)

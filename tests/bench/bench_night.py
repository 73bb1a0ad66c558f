"""A shop's night from file to e-mail table, timed and checked.

    python -m tests.bench.bench_night FOLDER TABLES CONFIG [RUN_DATE]

FOLDER holds `interactions.csv.gz` (user_id, item_id, timestamp in Unix seconds) and `items.jsonl.gz`, TABLES
is an empty folder. Import, train as of three days before the night, the night, the same night again, a
backfill of the three days before by `spark-submit`. After it every step's wall time and peak memory
(proportional set size of all its processes) are printed, and the night is read back with `deltalake` and
checked against the files. RUN_DATE defaults to the last day with an event.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import psutil

from tests.steps.reading import rows, version

NIGHTLY = ("user_sequences", "candidates", "recommendations", "email_recommendations", "feed_recommendations")
TOP_K, EMAIL_SLOTS, FEED_SLOTS, ACTIVE_DAYS = 20, 5, 10, 7


def main(folder: Path, root: Path, config: str, run_date: date | None) -> None:
    """Run, time and check."""
    log, catalogue = read_log(folder / "interactions.csv.gz"), read_catalogue(folder / "items.jsonl.gz")
    night = run_date or log["when"].max().date()
    first = night - timedelta(days=3)
    # With the LLM, whatever the training decides: the checks are about whom it reads.
    common = ["--config", config, "--set", f"tables.root={root}", "--set", "scoring.order=blend_with_llm"]
    submit = ["spark-submit", "--properties-file", "conf/spark-defaults.conf", "jobs/backfill.py"]
    files = ["--interactions", str(folder / "interactions.csv.gz"), "--items", str(folder / "items.jsonl.gz")]
    timed("import", ["allmrec", "import", "files", *files, "--set", f"tables.root={root}"])
    timed("train", ["allmrec", "train", *common, "--run-date", str(first)])
    timed("night", ["allmrec", "nightly", *common, "--run-date", str(night)])
    check_night(root, night, log, catalogue)
    before = {table: version(root, table) for table in NIGHTLY}
    timed("the same night again", ["allmrec", "nightly", *common, "--run-date", str(night)])
    assert {table: version(root, table) for table in NIGHTLY} == before, "the second night wrote"
    timed(
        "backfill of three days",
        [*submit, *common, "--from", str(first), "--to", str(night - timedelta(days=1))],
    )
    for day in pd.date_range(first, night - timedelta(days=1)):
        check_night(root, day.date(), log, catalogue)


def read_log(path: Path) -> pd.DataFrame:
    """Return the log as it lies in the file, with `when` in UTC."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        frame = pd.DataFrame(list(csv.DictReader(file)))
    return frame.assign(when=pd.to_datetime(frame["timestamp"].astype("int64"), unit="s", utc=True))


def read_catalogue(path: Path) -> dict[str, dict]:
    """Return the items that can be recommended: those with a title."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {str(row["item_id"]): row for row in lines if str(row.get("title") or "").strip()}


def check_night(root: Path, night: date, log: pd.DataFrame, catalogue: dict[str, dict]) -> None:
    """Raise AssertionError unless the night's tables are what the files say they must be."""
    cut_off = pd.Timestamp(datetime.combine(night, datetime.min.time(), timezone.utc))
    past = log[(log["when"] < cut_off) & log["item_id"].isin(list(catalogue))]
    seen = log[log["when"] < cut_off].groupby("user_id")["item_id"].agg(set).to_dict()
    found = rows(root, "recommendations", run_date=str(night)).sort_values(["user_id", "rank"])
    lists = found.groupby("user_id")["item_id"].agg(list)
    assert set(lists.index) == set(past["user_id"]), (
        "users with an event before the run date and users served differ"
    )
    assert all(len(items) == len(set(items)) == TOP_K for items in lists), (
        "a list has another length, or an item twice"
    )
    assert found["rank"].tolist() == list(range(1, TOP_K + 1)) * len(lists), "ranks have gaps"
    assert not any(seen[user] & set(items) for user, items in lists.items()), "a seen item was recommended"
    assert all(catalogue[item].get("available", True) is not False for item in set(found["item_id"])), (
        "an item that cannot be had was recommended"
    )
    sequences = rows(root, "user_sequences", run_date=str(night)).set_index("user_id")
    mine = (
        past.sort_values(["when", "item_id"])
        .groupby("user_id")["item_id"]
        .agg(lambda items: list(items)[-50:])
    )
    assert {user: list(items) for user, items in sequences["item_ids"].items()} == mine.to_dict(), (
        "sequences differ from the file"
    )
    last = past.groupby("user_id")["when"].max()
    active = set(last[last >= cut_off - pd.Timedelta(days=ACTIVE_DAYS)].index)
    by_llm = found[found["source"] == "llm"]
    tonight = set(by_llm.loc[by_llm["carried_from"].isna(), "user_id"])
    assert tonight <= active <= set(by_llm["user_id"]), (
        f"the LLM ordered {len(tonight)} users, {len(active)} were active"
    )
    for table, size in (("email_recommendations", EMAIL_SLOTS), ("feed_recommendations", FEED_SLOTS)):
        slots = rows(root, table, run_date=str(night)).set_index("user_id")["slots"]
        assert set(slots.index) == set(lists.index), f"{table} is not whole"
        assert all(len(items) == size for items in slots), f"{table} is not whole"
        assert all({slot["item_id"] for slot in own} <= set(lists[user]) for user, own in slots.items()), (
            f"{table} shows what was not recommended"
        )
    print(
        f"checked {night}: {len(lists):,} users × {TOP_K} distinct unseen items, "
        f"{len(active):,} ordered by the LLM, "
        "e-mails and feeds whole",
        flush=True,
    )


def timed(label: str, command: list[str]) -> None:
    """Run a command in this interpreter's environment; print its wall seconds and peak memory.

    Raises CalledProcessError where it fails.
    """
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
    }
    started, peak = time.monotonic(), 0
    with subprocess.Popen([str(programs / command[0]), *command[1:]], env=environment) as process:
        while process.poll() is None:
            peak = max(peak, memory_of(psutil.Process(process.pid)))
            time.sleep(1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    print(f"{label}: {time.monotonic() - started:.0f} s, at most {peak / 2**30:.1f} GiB", flush=True)


def memory_of(process: psutil.Process) -> int:
    """Return the bytes that a process and its children hold (Linux).

    Shared pages are divided among those who share them.
    """
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.NoSuchProcess:  # ended while we looked
            continue
    return total


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        sys.argv[3],
        date.fromisoformat(sys.argv[4]) if len(sys.argv) == 5 else None,
    )

"""How a night without the LLM grows with the number of users: time, memory and files of every step.

    python -m tests.bench.bench_scale FOLDER [--items N] [--users N …] [--no-others] [--set KEY=VALUE …]

FOLDER keeps a shop for every size (`scale_shop`), which is made where it is missing. For each one
`allmrec nightly` runs as a process of its own, on empty nightly tables, watched from outside, and once more
for the day after, on which a tenth of the users had one event; then ALS and DuckDB do the work of two of its
steps on the same log (`scale_others`). Printed are, for every size and step, seconds, CPU seconds of all
processes, users per second, peak memory: of the driver's Python, of its JVM (in local mode that is all of
Spark), of what the JVM's heap held after a collection, and of all Python workers together; then the files of
every table; and, for every two sizes, the ratio of their times and what a night takes beside its users. All
figures are kept in FOLDER/figures.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.bench.scale_shop import EVENTS, RUN_DATE, settings
from tests.steps.reading import rows

STEPS = ("sequences", "candidates", "score", "publish")
NIGHTLY = ("user_sequences", "candidates", "recommendations", "email_recommendations", "feed_recommendations")
INPUTS = ("interactions", "items", "_bundles")
HEAP = re.compile(r"^\[(\S+?)([+-]\d{4})\].* (?:\d+)M->(\d+)M\(\d+M\)")
MIB = 2**20


class Sample(NamedTuple):
    """What the processes of a night hold at a moment, in bytes (proportional set size)."""

    moment: float
    cpu_seconds: float
    """That they, and those that have ended, have computed so far."""
    driver: int
    """Python."""
    jvm: int
    workers: int
    num_workers: int


def main(folder: Path, users: Sequence[int], num_items: int, others: bool, sets: Sequence[str]) -> None:
    """Measure and print all sizes."""
    found: list[dict[str, Any]] = []
    for num_users in users:
        root = folder / f"{num_users}_{num_items}" / "tables"
        if not (root / "_bundles").is_dir():
            python("tests.bench.scale_shop", str(root), str(num_users), str(num_items))
        clear(root)
        figures = {"users": num_users, "items": num_items, **night(root, sets, RUN_DATE)}
        python("tests.bench.scale_shop", str(root), str(num_users), str(num_items), "more")
        figures["next"] = night(root, sets, RUN_DATE + timedelta(days=1))
        if others:
            figures["others"] = json.loads(python("tests.bench.scale_others", str(root)).splitlines()[-1])
        found.append(figures)
        (folder / "figures.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        show(figures)
    for small, large in itertools.pairwise(found):
        compare(small, large)


def python(module: str, *arguments: str) -> str:
    """Return what a module prints that runs as a program of its own."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def clear(root: Path) -> None:
    """Delete what nights left."""
    for place in root.iterdir():
        if place.name not in INPUTS:
            shutil.rmtree(place)


def night(root: Path, sets: Sequence[str], run_date: date) -> dict[str, Any]:
    """Run a night and return its figures."""
    heap_log = root.parent / "gc.log"
    heap_log.unlink(missing_ok=True)
    spark = {"spark.driver.extraJavaOptions": f"-Xlog:gc:file={heap_log}:utctime"}
    all_sets = [*settings(root), f"spark.settings={json.dumps(spark)}", *sets]
    command = [str(Path(sys.executable).with_name("allmrec")), "nightly", "--run-date", str(run_date)]
    command += [part for value in all_sets for part in ("--set", value)]
    started, samples, cpu = time.time(), list[Sample](), dict[psutil.Process, float]()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            samples.append(sampled(psutil.Process(process.pid), cpu))
            time.sleep(0.5)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    steps = {name: of_step(root, run_date, name, samples, heap_log) for name in STEPS}
    tables = {name: files_of(root, name) for name in ("interactions", *NIGHTLY)}
    seconds, cpu_seconds = time.time() - started, samples[-1].cpu_seconds
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "steps": steps, "tables": tables}


def sampled(process: psutil.Process, cpu: dict[psutil.Process, float]) -> Sample:
    """Return what a night's processes hold now; `cpu` keeps the CPU seconds of each."""
    held: dict[str, list[int]] = {"java": [], "python": []}
    driver = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            num_bytes, name = one.memory_full_info().pss, one.name()
            cpu[one] = sum(one.cpu_times()[:2])
        except psutil.Error:  # ended while we looked
            continue
        if one.pid == process.pid:
            driver = num_bytes
        else:
            held["java" if name == "java" else "python"].append(num_bytes)
    jvm, workers = sum(held["java"]), sum(held["python"])
    return Sample(time.time(), sum(cpu.values()), driver, jvm, workers, len(held["python"]))


def of_step(
    root: Path, run_date: date, step: str, samples: Iterable[Sample], heap_log: Path
) -> dict[str, Any]:
    """Return the figures of a step: its record in `runs`, and what was seen meanwhile."""
    runs = rows(root, "runs")
    runs = runs[(runs["run_date"] == run_date) & (runs["step"] == step)]
    row = runs[runs["status"] == "done"].iloc[-1]
    start, end = row["started_at"].timestamp(), row["finished_at"].timestamp()
    own = [sample for sample in samples if start <= sample.moment <= end]
    heaps = [num_bytes for moment, num_bytes in heaps_of(heap_log) if start <= moment <= end]
    figures = {name: max(getattr(one, name) for one in own) for name in Sample._fields[1:]}
    figures["cpu_seconds"] -= own[0].cpu_seconds
    return {"seconds": end - start, "parts": dict(row["timings"]), "heap": max(heaps, default=0), **figures}


def heaps_of(log: Path) -> list[tuple[float, int]]:
    """Return (Unix time, bytes that the JVM's heap held after a collection)."""
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        match = HEAP.match(line)
        if match:
            moment = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc)
            found.append((moment.timestamp(), int(match[3]) * MIB))
    return found


def files_of(root: Path, table: str) -> tuple[int, int]:
    """Return the number and the bytes of a table's data files."""
    paths = (path for path in (root / table).rglob("*.parquet") if "_delta_log" not in path.parts)
    sizes = [path.stat().st_size for path in paths]
    return len(sizes), sum(sizes)


def show(figures: dict[str, Any]) -> None:
    """Print the figures of one size as tables."""
    users, steps = figures["users"], figures["steps"]
    print(f"\n{users:,} users, {figures['items']:,} items, {users * EVENTS:,} events")
    print("| step | seconds | CPU | users/s | driver MiB | JVM MiB | heap MiB | workers MiB (number) |")
    print(f"| night | {figures['seconds']:.1f} | {figures['cpu_seconds']:.1f} |")
    for name, step in steps.items():
        memory = " | ".join(f"{step[key] / MIB:,.0f}" for key in ("driver", "jvm", "heap", "workers"))
        times = f"{step['seconds']:.1f} | {step['cpu_seconds']:.1f} | {users / step['seconds']:,.0f}"
        print(f"| {name} | {times} | {memory} ({step['num_workers']}) |")
        parts = step["parts"].items()
        print("  " + ", ".join(f"{part} {taken:.1f}" for part, taken in parts if part != "all"))
    tables = figures["tables"].items()
    print(", ".join(f"{name}: {number} files, {size / 1e6:,.1f} MB" for name, (number, size) in tables))
    for name, step in figures["next"]["steps"].items():
        print(f"next night, {name}: {step['seconds']:.1f} s, CPU {step['cpu_seconds']:.1f} s")
    for name, (seconds, cpu_seconds) in figures.get("others", {}).items():
        print(f"{name}: {seconds:.1f} s, CPU {cpu_seconds:.1f} s")
    sys.stdout.flush()


def compare(small: dict[str, Any], large: dict[str, Any]) -> None:
    """Print how times grow from one size to another, and what a straight line has at no users."""
    print(f"\nfrom {small['users']:,} to {large['users']:,} users, × {large['users'] / small['users']:g}")
    for name in ("night", *STEPS):
        one, other = (figures if name == "night" else figures["steps"][name] for figures in (small, large))
        lines = []
        for unit in ("seconds", "cpu_seconds"):
            slope = (other[unit] - one[unit]) / (large["users"] - small["users"])
            fixed = one[unit] - slope * small["users"]
            ratio = other[unit] / one[unit]
            lines.append(f"{unit} × {ratio:.2f} ({fixed:.0f} and {slope * 1e6:,.0f} a million users)")
        print(f"{name}: {'; '.join(lines)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 20_000, 100_000])
    parser.add_argument("--no-others", action="store_true")
    parser.add_argument("--set", dest="sets", nargs="+", default=[])
    given = parser.parse_args()
    main(given.folder.resolve(), given.users, given.items, not given.no_others, given.sets)

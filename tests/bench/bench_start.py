"""The cost of commands before they work: CPU seconds, and the memory of their Python.

    python -m tests.bench.bench_start [ROUNDS]

`runs` and `show` end where Spark would start, so that their figures are those of the imports. Commands run in
turn, each in a process of its own. Prints the medians of ROUNDS (7) as a table, with the least and the most
CPU seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from typing import NamedTuple

COMMANDS = (
    "--help",
    "--version",
    "nightly --help",
    "nigthly",
    "maintain --dryrun",
    "train --set sed=1",
    "runs",
    "show somebody",
)
PROGRAM = """
import sys
from allmrec import cli
from allmrec.errors import SetupError

def refuse(*_):
    raise SetupError("no Java found")

cli.create_session = refuse
sys.argv[0] = "allmrec"
cli.main()
"""
"""`allmrec` without a start of Spark."""


class Cost(NamedTuple):
    """The cost of one process."""

    cpu_seconds: float
    megabytes: float
    """The largest resident size."""


def cost_of(command: str) -> Cost:
    """Return the cost of one command."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main(rounds: str = "7") -> None:
    """Measure, and print a row for each command."""
    costs: dict[str, list[Cost]] = {command: [] for command in COMMANDS}
    for _ in range(int(rounds)):
        for command, measured in costs.items():
            measured.append(cost_of(command))
    print("| command | CPU s (least to most) | MB |\n|---|---|---|")
    for command, measured in costs.items():
        seconds = [cost.cpu_seconds for cost in measured]
        size = median(cost.megabytes for cost in measured)
        print(
            f"| `{command}` | {median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {size:.0f} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Kill, double and starve nights for an hour, and say what came of it.

Without --only two processes share the machine: one does the pairs, which keep both cores busy, the other what
waits more, each in a shop of its own.

    python -m tests.chaos [--seed 1] [--kills 50] [--pairs 20] [--only KIND]…

Kinds: injected, signals, cluster (the kills are divided among them), one_date, two_dates, backfill (so many
pairs of each), places. One line is written per case; the exit code is 1 if one failed.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A second torch thread would only wait for the other processes; before torch is imported, and inherited.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from allmrec.config import SparkConfig
from allmrec.spark.session import create_session
from tests.chaos.cases import Case, Outcome, run_case, summary
from tests.chaos.cluster import lost_executors
from tests.chaos.injected import injected_kills
from tests.chaos.pairs import PAIRS, pairs
from tests.chaos.places import special_places
from tests.chaos.shop import Shop, make_shop, several_waves
from tests.chaos.signals import signalled_nights
from tests.conftest import QUICK_SQL

LANES = (tuple(PAIRS), ("injected", "places", "signals", "cluster"))
"""Kinds that one process does, of two at the same time."""
KINDS = tuple(kind for lane in LANES for kind in lane)
MAX_SECONDS = 900
"""After so long a case hangs: the stacks of all threads are shown, and everything ends."""


def shares(num_kills: int) -> dict[str, int]:
    """Return how many nights are killed how: by an injected fault, by a signal, by a lost executor."""
    few = {"signals": num_kills * 8 // 50, "cluster": num_kills * 2 // 50}
    return {**few, "injected": num_kills - sum(few.values())}


def cases_of(kind: str, shop: Shop, num_kills: int, num_pairs: int, rng: random.Random) -> list[Case]:
    """Return the cases of a kind."""
    if kind in PAIRS:
        return pairs(shop, kind, num_pairs, rng)
    if kind == "places":
        return special_places(shop)
    kills = {"injected": injected_kills, "signals": signalled_nights, "cluster": lost_executors}
    return kills[kind](shop, shares(num_kills)[kind], rng)


def main(seed: int, num_kills: int, num_pairs: int, kinds: tuple[str, ...]) -> int:
    """Do all cases of these kinds; return the exit code."""
    folder, start = Path(tempfile.mkdtemp(prefix="allmrec-chaos-")), time.monotonic()
    config = SparkConfig(master="local[2]", driver_memory="2g", shuffle_partitions=2, settings=QUICK_SQL)
    spark = create_session(config, "allmrec-chaos")
    outcomes: list[Outcome] = []
    with several_waves():
        shop = make_shop(spark, folder)
        print(f"the shop is in {folder} ({time.monotonic() - start:.0f} s)", flush=True)
        for kind in kinds:
            for case in cases_of(kind, shop, num_kills, num_pairs, random.Random(f"{seed} {kind}")):
                shop.place = folder / "cases" / str(len(outcomes) + 1)
                faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
                outcomes.append(run_case(case))
                faulthandler.cancel_dump_traceback_later()
                print(outcomes[-1], flush=True)
                if outcomes[-1].word != "FAILED":
                    shutil.rmtree(shop.place, ignore_errors=True)
    spark.stop()
    print("\n".join(["", *summary(outcomes), f"{(time.monotonic() - start) / 60:.0f} minutes, seed {seed}"]))
    failed = any(outcome.word == "FAILED" for outcome in outcomes)
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


def in_lanes(arguments: list[str]) -> int:
    """Do all kinds, each lane in a process of its own; return the highest exit code."""
    start = time.monotonic()
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    lanes = [subprocess.Popen([*command, *(f"--only={kind}" for kind in lane)]) for lane in LANES]
    code = max(lane.wait() for lane in lanes)
    print(f"{(time.monotonic() - start) / 60:.0f} minutes in all, exit code {code}")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--only", choices=KINDS, action="append")
    asked = parser.parse_args()
    if asked.only is None:
        sys.exit(in_lanes(sys.argv[1:]))
    sys.exit(main(asked.seed, asked.kills, asked.pairs, tuple(asked.only)))

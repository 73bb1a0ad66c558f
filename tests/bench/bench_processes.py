"""What a second process gives a training: seconds and figures of the CF model and of stage 2, in pairs.

    python -m tests.bench.bench_processes TABLES CONFIG PAIRS [SECTION.KEY=VALUE …]

TABLES/_snapshots holds one snapshot, which `allmrec train` wrote. Each pair trains a bundle by one process
and one by `training.processes` (2 where nothing is said); who is first alternates. Seconds are those of steps
and evaluations (`cf_seconds`, `stage2_llm_seconds`), and those of the whole part: the start of the processes,
and what one process does in any case (`cf_all`, `stage2_all`). prompt.soft_tokens=false leaves out stage 2.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from allmrec.config import Config, load
from allmrec.llm.frozen import resolved_dtype
from allmrec.reporting import Report
from allmrec.runtime.processes import Processes
from allmrec.spark.session import create_session
from allmrec.training.loader import Snapshot
from allmrec.training.pipeline import train_bundle
from allmrec.training.work import Work
from tests.bench.trained import only_snapshot

FIGURES = ("cf_steps", "cf_NDCG@10", "stage2_steps", "stage2_loss_before", "stage2_loss_after")
SECONDS = ("cf_seconds", "cf_all", "stage2_llm_seconds", "stage2_all")


def main(root: Path, config_path: str, num_pairs: int, overrides: list[str]) -> None:
    """Print every training, and the ratios of each pair's seconds with their median."""
    config = load([config_path], [f"tables.root={root}", "training.processes=2", *overrides])
    llm = config.llm.model_copy(update={"dtype": resolved_dtype(config.llm)})
    config = config.model_copy(update={"llm": llm})
    alone = config.model_copy(update={"training": config.training.model_copy(update={"processes": 1})})
    session, snapshot = create_session(config.spark, "bench_processes"), only_snapshot(root)
    ratios = defaultdict[str, list[float]](list)
    for pair in range(num_pairs):
        found: dict[int, dict[str, float]] = {}
        for settings in (alone, config) if pair % 2 == 0 else (config, alone):
            num = settings.training.processes
            found[num] = figures(snapshot, settings, Processes.of(session, settings))
            shown = [name for name in (*SECONDS, *FIGURES) if name in found[num]]
            words = ", ".join(f"{name} {found[num][name]:.4f}" for name in shown)
            print(f"processes {num}: {words}", flush=True)
        for name in set(SECONDS) & set(shown):
            ratios[name].append(found[config.training.processes][name] / found[1][name])
    for name, values in sorted(ratios.items()):
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name}: together / alone {statistics.median(values):.2f} (of {each})")


def figures(snapshot: Snapshot, config: Config, launch: Processes | None) -> dict[str, float]:
    """Return seconds and figures of one training, named by their part."""
    report = Report(lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        _, found = train_bundle(Work(snapshot, config, Path(folder), report, launch))
    return found | {"cf_all": report.seconds["cf"], "stage2_all": report.seconds["stage 2"]}


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])

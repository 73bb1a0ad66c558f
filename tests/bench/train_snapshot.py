"""Training without Spark, on a machine with a GPU and a copied snapshot, say.

    python -m tests.bench.train_snapshot TABLES CONFIG [SECTION.KEY=VALUE …]

TABLES/_snapshots holds one snapshot, which `allmrec train` wrote; the bundle comes to TABLES/_bundles, where
the benches without Spark look for it. A killed training goes on from its checkpoints.
"""

from __future__ import annotations

import sys
from pathlib import Path

from allmrec.bundle import save_bundle
from allmrec.config import load
from allmrec.llm.frozen import resolved_dtype
from allmrec.reporting import Report
from allmrec.training.pipeline import train_bundle
from allmrec.training.work import Work
from tests.bench.trained import only_snapshot


def main(root: Path, config_path: str, overrides: list[str]) -> None:
    """Train on the snapshot and store the bundle; raises ValueError where there is not exactly one."""
    config = load([config_path], [f"tables.root={root}", *overrides])
    llm = config.llm.model_copy(update={"dtype": resolved_dtype(config.llm)})
    config = config.model_copy(update={"llm": llm})
    snapshot = only_snapshot(root)
    manifest = snapshot.manifest
    if config.sequences.max_history != snapshot.max_history:
        raise ValueError(
            f"sequences.max_history: {config.sequences.max_history}, expected {snapshot.max_history}, "
            "as the snapshot has it"
        )
    bundle, figures = train_bundle(Work(snapshot, config, root / "_checkpoints", Report(print)))
    origin = {
        "purpose": manifest["purpose"],
        "trained_before": manifest["cut_off"],
        "fingerprint": snapshot.folder.name,
        "figures": {name: value for name, value in figures.items() if not name.endswith("seconds")},
        "table_versions": manifest["table_versions"],
    }
    print(f"bundle {save_bundle(root / '_bundles', bundle, origin)}")
    print(", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

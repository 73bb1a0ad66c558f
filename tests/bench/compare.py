"""Compare two nights, or two bundles.

    python -m tests.bench.compare night ROOT OTHER_ROOT [RUN_DATE]
    python -m tests.bench.compare bundle FOLDER OTHER_FOLDER

`night` compares the nightly tables of two roots row by row, exactly, run_id and scored_at aside (and
bundle_id where it is named by another content). `bundle` compares every file: tensors bit by bit, JSON by
key. What differs is printed, and the exit code is then 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from tests.steps.reading import comparable, rows

NIGHTLY = ("user_sequences", "candidates", "recommendations", "email_recommendations", "feed_recommendations")
NAMES_OF_A_RUN = ("run_id", "scored_at")


def night_differences(root: Path, other: Path, run_date: str | None) -> Iterator[str]:
    """Yield a line per nightly table that differs; print a line per table that is the same."""
    where = {} if run_date is None else {"run_date": run_date}
    for table in NIGHTLY:
        frames = [rows(place, table, **where) for place in (root, other)]
        keys = [key for key in ("run_date", "user_id", "rank") if key in frames[0].columns]
        one, two = (comparable(frame).sort_values(keys, ignore_index=True) for frame in frames)
        columns = [column for column in one.columns if column not in NAMES_OF_A_RUN]
        if len(one) != len(two) or set(one.columns) != set(two.columns):
            yield f"{table}: {len(one):,} and {len(two):,} rows; {sorted(one.columns)}, {sorted(two.columns)}"
            continue
        different = [column for column in columns if not _equal(one[column], two[column])]
        if different:
            unequal = ~_same_rows(one[different], two[different])
            yield f"{table}: {int(unequal.sum()):,} of {len(one):,} rows differ in {', '.join(different)}"
        else:
            print(f"{table}: {len(one):,} rows, {len(columns)} columns, all equal")


def bundle_differences(folder: Path, other: Path) -> Iterator[str]:
    """Yield a line per file of two bundles that differs, with the tensors or keys that do."""
    names = [
        {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
        for place in (folder, other)
    ]
    yield from (f"{name}: in one of them only" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        one, two = folder / name, other / name
        if one.read_bytes() == two.read_bytes():
            print(f"{name}: equal")
        elif name.endswith(".safetensors"):
            names_of_tensors = ", ".join(_tensor_differences(load_file(one), load_file(two)))
            yield f"{name}: {names_of_tensors or 'the same tensors, other bytes'}"
        elif name.endswith(".json"):
            keys = _json_differences(*(json.loads(path.read_text(encoding="utf-8")) for path in (one, two)))
            yield f"{name}: {', '.join(keys) or 'the same values, other bytes'}"
        else:
            yield f"{name}: other bytes"


def _equal(one: pd.Series, two: pd.Series) -> bool:
    return bool(_same_rows(one.to_frame(), two.to_frame()).all())


def _same_rows(one: pd.DataFrame, two: pd.DataFrame) -> np.ndarray:
    return ((one == two) | (one.isna() & two.isna())).all(axis=1).to_numpy()


def _tensor_differences(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> Iterator[str]:
    for name in sorted(one.keys() | two.keys()):
        if name not in one or name not in two or one[name].shape != two[name].shape:
            yield f"{name} (missing, or of another shape)"
        elif not torch.equal(one[name], two[name]):
            yield f"{name} (by at most {(one[name].double() - two[name].double()).abs().max():.1e})"


def _json_differences(one: Any, two: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            yield from _json_differences(one.get(key), two.get(key), f"{path}.{key}".lstrip("."))
    elif one != two:
        yield f"{path} ({str(one)[:40]} | {str(two)[:40]})"


def main(what: str, one: str, two: str, run_date: str | None = None) -> int:
    """Compare, print, and return the exit code."""
    differences = list(
        night_differences(Path(one), Path(two), run_date)
        if what == "night"
        else bundle_differences(Path(one), Path(two))
    )
    for line in differences:
        print(f"DIFFERENT {line}")
    print("the same" if not differences else f"{len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in ("night", "bundle"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

"""What must hold after a disturbed work was done again: the rows of an undisturbed one, and nothing else.

Everything is read by an independent reader, without Spark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

import pandas as pd

from tests.bench.compare import NAMES_OF_A_RUN, NIGHTLY
from tests.chaos.cases import Broken
from tests.chaos.shop import Shop, Work
from tests.steps.reading import comparable, rows

STEPS = ("sequences", "candidates", "score", "publish")


def check(shop: Shop, root: Path, works: Iterable[Work]) -> None:
    """Raise Broken, with all that is wrong, unless `root` holds what the works leave undisturbed."""
    wrong = [line for work in works for line in _wrong(root, shop.undisturbed(work).root, work.dates)]
    if wrong:
        raise Broken(f"{root}: " + "; ".join(wrong))


def records(root: Path, run_date: date) -> pd.DataFrame:
    """Return the rows of `runs` of a date."""
    found = rows(root, "runs")
    return found[found["run_date"].astype(str) == str(run_date)]


def _wrong(root: Path, reference: Path, dates: list[date]) -> Iterator[str]:
    """Yield what is wrong with some dates in `root`."""
    for day in dates:
        for table in NIGHTLY:
            yield from _differences(root, reference, table, day)
        yield from _strange_lists(root, day)
        done = records(root, day).query("status == 'done'")["step"]
        yield from (f"{day}: no {step} is recorded as done" for step in STEPS if step not in set(done))
        left = [path for path in (root / "_staging" / str(day)).rglob("*") if path.is_file()]
        if left:
            yield f"{day}: {len(left)} files are left in staging, such as {left[0].relative_to(root)}"
    keys = ["table", "row_hash", "reason"]
    rejected, expected = (rows(place, "rejected_rows")[keys] for place in (root, reference))
    if rejected.duplicated().any():
        yield f"rejected_rows: {int(rejected.duplicated().sum())} rows are there twice"
    if set(rejected.itertuples(index=False)) != set(expected.itertuples(index=False)):
        yield f"rejected_rows: {len(rejected)} rows, expected those {len(expected)} of {reference}"


def _differences(root: Path, reference: Path, table: str, day: date) -> Iterator[str]:
    """Yield a line where a table's rows of a date are not exactly those of the reference."""
    found, expected = (_content(place, table, day) for place in (root, reference))
    if len(found) != len(expected) or set(found.columns) != set(expected.columns):
        yield f"{table} of {day}: {len(found)} rows, expected {len(expected)}"
        return
    different = (found != expected[found.columns]) & ~(found.isna() & expected[found.columns].isna())
    if different.to_numpy().any():
        columns = ", ".join(found.columns[different.any()])
        yield f"{table} of {day}: {int(different.any(axis=1).sum())} of {len(found)} rows differ in {columns}"


def _content(root: Path, table: str, day: date) -> pd.DataFrame:
    """Return a table's rows of a date, sorted by key, without what names the run."""
    if not (root / table).is_dir():
        return pd.DataFrame()
    found = comparable(rows(root, table, run_date=str(day)))
    keys = [key for key in ("user_id", "rank") if key in found.columns]
    return found.drop(columns=[*NAMES_OF_A_RUN], errors="ignore").sort_values(keys, ignore_index=True)


def _strange_lists(root: Path, day: date) -> Iterator[str]:
    """Yield what is wrong with who made the lists of a date: one run each, one of `runs`, all one bundle."""
    lists = rows(root, "recommendations", run_date=str(day))
    if lists.empty:
        return
    mixed = lists.groupby("user_id")[["run_id", "bundle_id"]].nunique().max(axis=1) > 1
    if mixed.any():
        yield f"recommendations of {day}: {int(mixed.sum())} lists are of two runs or bundles"
    unknown = set(lists["run_id"]) - set(rows(root, "runs")["run_id"])
    if unknown:
        yield f"recommendations of {day}: made by {unknown}, whom `runs` does not know"
    bundles = set(lists.loc[lists["carried_from"].isna(), "bundle_id"])
    if len(bundles) > 1:
        yield f"recommendations of {day}: scored with {len(bundles)} bundles: {bundles}"

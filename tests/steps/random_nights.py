"""Random sequences of nights, each held against a night from scratch on the same tables.

Between two nights the log gets new, late, repeated, changed and bad rows and loses some. The catalogue gets
new, reworded, vanished, returning, available and unavailable items. Nights run in order, out of order, again
with --force, or with --full. A night from scratch runs on copies of log, catalogue and bundle. No night
precedes it, but for the e-mails that it must not repeat. Its rows must be the same.
"""

from __future__ import annotations

import datetime as dt
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.runtime.context import Context, RunOptions
from allmrec.steps.nightly import run_nightly

FIRST_NIGHT = dt.date(2026, 6, 1)
NUM_USERS = 25
OF_RUN = ("run_id", "scored_at", "carried_from", "bundle_id")
"""Columns of `recommendations` that say which run wrote a list."""
TABLES = (
    "user_sequences",
    "candidates",
    "recommendations",
    "email_recommendations",
    "feed_recommendations",
)
NEAR = 1e-4
"""How far scores may differ that are computed in other company: rounding of float32."""
LOG = "user_id string, item_id string, event_time timestamp, rating double, event_type string"
ITEMS = (
    "item_id string, title string, description string, categories array<string>, available boolean, "
    "updated_at timestamp"
)
NewContext = Callable[..., Context]


@dataclass
class Sequence:
    """A shop and its nights."""

    new_context: NewContext
    folder: Path
    seed: int
    settings: tuple[str, ...]
    told: list[str] = field(default_factory=list)
    """What happened, in words, for whoever must find a difference."""
    dates: list[dt.date] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.root = self.folder / "tables"

    @classmethod
    def of(cls, new_context: NewContext, trained: Path, folder: Path, seed: int) -> Sequence:
        """Return a shop of a few users of the trained one, with its catalogue and bundle."""
        draw = random.Random(seed)
        settings = (
            f"scoring.active_within_days={draw.choice(['null', '7', '2'])}",
            f"scoring.order={draw.choice(['blend_with_llm', 'blend_with_llm', 'llm', 'blend_without_llm'])}",
            f"candidates.exclude_seen={draw.choice(['true', 'true', 'false'])}",
            "gates.max_rejected_share=null",
            "gates.max_users_change=null",
            "gates.max_coverage_drop=null",
            "gates.max_top1_rise=null",
            "gates.max_unservable_share=null",
            "gates.max_short_share=null",
        )
        own = cls(new_context, folder, seed, settings)
        own.told.append(f"seed {seed}: {', '.join(settings[:3])}")
        shutil.copytree(trained / "_bundles", own.root / "_bundles")
        log, items = (own._read(trained, name) for name in ("interactions", "items"))
        own._save(
            log.where(F.substring("user_id", -4, 4) < str(NUM_USERS).zfill(4)).selectExpr(*_columns(LOG)),
            "interactions",
        )
        own._save(items.selectExpr(*_columns(ITEMS)), "items")
        if draw.random() < 0.5:
            own.sql("ALTER TABLE {log} SET TBLPROPERTIES (delta.enableChangeDataFeed = true)")
            own.told.append("change data feed on")
        return own

    def context(self, root: Path, **options: Any) -> Context:
        """Return the context of a new run."""
        context = self.new_context(root, *self.settings)
        return Context.open(context.spark, context.config, context.report, RunOptions(**options))

    def play(self, num_nights: int, num_compared: int) -> None:
        """Let nights pass, and hold the last `num_compared` of them against nights from scratch."""
        for number in range(num_nights):
            if number:
                self._change()
            run_date, options = self._next()
            self.told.append(f"night of {run_date} {options}")
            run_nightly(self.context(self.root, **options), run_date)
            if number >= num_nights - num_compared:
                self.compare(run_date)

    def compare(self, run_date: dt.date) -> None:
        """Raise AssertionError, with the whole story, where the night's rows are not those from scratch."""
        scratch = self.folder / f"scratch {len(self.told)}"
        # E-mails of earlier dates are an input of publish.
        for name in ("interactions", "items", "email_recommendations", "_bundles"):
            shutil.copytree(self.root / name, scratch / name)
        run_nightly(self.context(scratch), run_date)
        for table in TABLES:
            rows, expected = (self._rows(root, table, run_date) for root in (self.root, scratch))
            try:
                _require_equal(rows, expected, table)
            except AssertionError as error:
                raise AssertionError(
                    "\n".join([*self.told, f"{table} of {run_date}:", str(error)])
                ) from error
        shutil.rmtree(scratch)

    def sql(self, statement: str) -> None:
        """Run SQL on the log."""
        spark = self.context(self.root).spark
        spark.sql(statement.format(log=f"delta.`{self.root}/interactions`"))

    def _next(self) -> tuple[dt.date, dict[str, bool]]:
        """Return the date of the next night, and its options."""
        newest = max(self.dates, default=FIRST_NIGHT - dt.timedelta(days=1))
        kind = self.draw.choice(["next", "next", "next", "gap", "again", "earlier"]) if self.dates else "next"
        options = {"full": True} if self.draw.random() < 0.15 else {}
        if kind == "again":
            return newest, {"force": True, "refresh": True}
        if kind == "earlier":
            return min(self.dates) - dt.timedelta(days=1), options
        run_date = newest + dt.timedelta(days=1 if kind == "next" else self.draw.randrange(2, 5))
        self.dates.append(run_date)
        return run_date, options

    def _change(self) -> None:
        """Let something happen to log and catalogue."""
        self._events()
        if self.draw.random() < 0.6:
            self._items()
        if self.draw.random() < 0.5:
            self._undo()

    def _events(self) -> None:
        midnight = dt.datetime.combine(max(self.dates), dt.time())
        items, users = self._ids("items", "item_id"), self._ids("interactions", "user_id")
        rows = []
        for _ in range(self.draw.randrange(4, 14)):
            after = dt.timedelta(
                days=self.draw.choice([-40, -3, -1, -1, 0, 0, 1, 3]), minutes=self.draw.randrange(1440)
            )
            is_odd = self.draw.random() < 0.1
            item = self.draw.choice(["unknown", None] if is_odd else items)
            user = self.draw.choice([*users, "newcomer 1", "newcomer 2"])
            rows.append((user, item, midnight + after, self.draw.choice([None, 4.0, 99.0]), "buy"))
        rows.append(self.draw.choice(rows))
        frame = self.context(self.root).spark.createDataFrame(rows, LOG).coalesce(1)
        frame.write.format("delta").mode("append").save(f"{self.root}/interactions")
        self.told.append(f"events: {rows}")

    def _items(self) -> None:
        rows = [row.asDict() for row in self._table("items").orderBy("item_id").collect()]
        for kind in self.draw.sample(["new", "reworded", "gone", "sold out", "back"], 2):
            self.told.append(f"items {kind}")
            chosen = self.draw.sample(range(len(rows)), 3)
            if kind == "new":
                for number in chosen:
                    title = f"{rows[number]['title']} {self.draw.randrange(1000)}"
                    new = {**rows[number], "item_id": f"new-{self.draw.randrange(10**6)}", "title": title}
                    rows.append({**new, "available": True})
            elif kind == "reworded":
                for number in chosen:
                    rows[number]["title"] = f"better {rows[number]['title']}"
            elif kind == "gone":
                rows = [row for number, row in enumerate(rows) if number not in chosen]
            else:
                for number in chosen:
                    rows[number]["available"] = kind == "back"
        spark = self.context(self.root).spark
        frame = spark.createDataFrame([tuple(row.values()) for row in rows], ITEMS)
        frame.coalesce(1).write.format("delta").mode("overwrite").save(f"{self.root}/items")

    def _undo(self) -> None:
        user = self.draw.choice(self._ids("interactions", "user_id"))
        statement = self.draw.choice(
            [
                f"DELETE FROM {{log}} WHERE user_id = '{user}' AND hash(item_id) % 2 = 0",
                f"UPDATE {{log}} SET event_time = event_time + INTERVAL 1 DAY WHERE user_id = '{user}'",
                "OPTIMIZE {log}",
            ]
        )
        self.sql(statement)
        self.told.append(statement)

    def _ids(self, table: str, column: str) -> list[str]:
        """Return the ids in a column of a table, sorted."""
        rows = self._table(table).select(column).distinct().collect()
        return sorted(row[0] for row in rows if row[0])

    def _save(self, frame: DataFrame, name: str) -> None:
        frame.coalesce(1).write.format("delta").save(f"{self.root}/{name}")

    def _table(self, name: str) -> DataFrame:
        return self._read(self.root, name)

    def _read(self, root: Path, name: str) -> DataFrame:
        return self.context(self.root).spark.read.format("delta").load(f"{root}/{name}")

    def _rows(self, root: Path, table: str, run_date: dt.date) -> pd.DataFrame:
        rows = self.context(root).tables.read_date(table, run_date).toPandas()
        return pd.DataFrame(rows).drop(columns=list(OF_RUN), errors="ignore")


def _columns(schema: str) -> list[str]:
    return [column.split()[0] for column in schema.split(", ")]


def _require_equal(rows: pd.DataFrame, expected: pd.DataFrame, table: str) -> None:
    """Raise AssertionError where two tables differ by more than the rounding of scores."""
    key = ["user_id", "rank"] if table == "recommendations" else ["user_id"]
    rows, expected = (frame.sort_values(key, ignore_index=True) for frame in (rows, expected))
    assert rows["user_id"].tolist() == expected["user_id"].tolist()
    for name in rows.columns:
        for place, (one, other) in enumerate(zip(rows[name], expected[name], strict=True)):
            assert _is_equal(one, other), f"{rows['user_id'][place]} {name}: {one!r}, from scratch {other!r}"


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | np.ndarray):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    if isinstance(one, tuple | dict):
        return _is_equal(list(_values(one)), list(_values(other)))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=0, atol=NEAR, equal_nan=True))
    return bool(one == other) or (one is None and other is None) or bool(pd.isna(one) and pd.isna(other))


def _values(row: Any) -> Any:
    return row.values() if isinstance(row, dict) else row

"""The records of nights in the table `runs`, for people: what is known of each night."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.errors import InputError
from allmrec.runtime.context import Context
from allmrec.runtime.runs import NIGHT, RunRow, as_run_row, place

NUM_TRAININGS = 3
"""Trainings that are shown, the newest ones."""
NUM_NAMED_DATES = 10
"""Run dates that an error names, the newest ones."""


@dataclass(frozen=True)
class NightRecord:
    """A run date: the newest row of each step, and the newest one that is done or failed."""

    run_date: date
    rows: Mapping[str, RunRow]
    ended: Mapping[str, RunRow]

    @classmethod
    def of(cls, run_date: date, rows: Iterable[RunRow]) -> NightRecord:
        """Return the night of a date; `rows` may be those of other dates and steps too."""
        own = sorted((row for row in rows if row.run_date == run_date), key=place)
        newest = {row.step: row for row in own}
        ended = {row.step: row for row in own if row.status != "started"}
        return cls(run_date, _in_order(newest), _in_order(ended))

    @property
    def newest(self) -> RunRow:
        """The newest row of all steps."""
        return max(self.rows.values(), key=place)

    @property
    def status(self) -> str:
        """`done`, or what became of the first step that is not done; how far it came where none is left."""
        for step, row in self.rows.items():
            if row.status != "done":
                return f"{row.status} {step}"
        return "done" if "publish" in self.rows else f"done to {list(self.rows)[-1]}"

    @property
    def counts(self) -> dict[str, int]:
        """What scoring counted, and the rejected rows; without scoring what is known before it."""
        known = self._of("sequences").counts
        before = {"users_in": known.get("users_out"), "rejected_rows": known.get("rejected_rows")}
        counts = {name: number for name, number in before.items() if number is not None}
        return counts | dict(self._of("score").counts)

    @property
    def shape(self) -> Mapping[str, float]:
        """`coverage` and `top1_share` of the lists."""
        return self._of("score").figures or self._of("publish").figures

    @property
    def gates(self) -> dict[str, float]:
        """What the rules measured."""
        return {rule: value for row in self.rows.values() for rule, value in row.gates.items()}

    @property
    def overridden(self) -> list[str]:
        """The rules that were broken and overridden."""
        return [rule for row in self.rows.values() for rule in row.overridden or []]

    @property
    def broken(self) -> list[str]:
        """The rules by which a step failed."""
        failed = (row for row in self.rows.values() if row.status == "failed")
        return [rule for row in failed for rule in _broken_rules(row)]

    @property
    def seconds(self) -> dict[str, float]:
        """How long each step took that has ended."""
        timings = {step: row.timings for step, row in self.ended.items()}
        return {step: parts["all"] for step, parts in timings.items() if "all" in parts}

    def seconds_of(self, step: str) -> float | None:
        """Return how long a step took, None where it has not ended."""
        return self.seconds.get(step)

    @property
    def llm_dtype(self) -> str | None:
        """The number type that the LLM computed in."""
        return self._of("score").llm_dtype or self._of("candidates").llm_dtype

    def count(self, name: str) -> int | None:
        """Return one of `counts`; what scoring does not name is 0, None where nothing was scored."""
        return self.counts.get(name, 0 if "users_out" in self.counts and name != "rejected_rows" else None)

    def _of(self, step: str) -> RunRow:
        """Return the newest row of a step, an empty one where there is none."""
        return self.rows.get(step, RunRow("", step, "", self.newest.started_at))


class Records(NamedTuple):
    """What is shown of `runs`."""

    listed: list[NightRecord]
    """The newest nights, newest first."""
    night: NightRecord
    """The one in detail."""
    before: NightRecord | None
    """The last published one before it, with what was done then; None where there is none."""
    trainings: list[RunRow]
    """The newest row of each of the newest trainings, newest first."""


def read_nights(context: Context, run_date: date | None, last: int) -> Records:
    """Return what is shown; raises InputError where there is no table, or not the night that is asked."""
    if not context.tables.exists("runs"):
        raise InputError(
            f"runs: no table below {context.tables.root}, expected a night; "
            "run one (allmrec nightly --run-date …) or set tables.root"
        )
    runs = context.tables.read("runs").where(F.col("run_date").isNotNull())
    dates, published, trained = _dates(runs)
    if not dates:
        raise InputError("runs: no night in it, expected one; run one (allmrec nightly --run-date …)")
    shown = run_date or dates[0]
    if shown not in dates:
        older = f" and {len(dates) - NUM_NAMED_DATES} older" if len(dates) > NUM_NAMED_DATES else ""
        named = ", ".join(map(str, dates[:NUM_NAMED_DATES]))
        raise InputError(f"runs: no night of {shown}, expected one of {named}{older}; check --run-date")
    before = max((day for day in published if day < shown), default=None)
    wanted = {*dates[:last], shown, *([before] if before else [])}
    of_nights = F.col("step").isin(*NIGHT) & F.col("run_date").isin(*wanted)
    of_trainings = (F.col("step") == "train") & F.col("run_date").isin(*trained)
    rows = [as_run_row(row.asDict()) for row in runs.where(of_nights | of_trainings).collect()]
    done = [row for row in rows if row.status == "done"]
    return Records(
        listed=[NightRecord.of(day, rows) for day in dates[:last]],
        night=NightRecord.of(shown, rows),
        before=NightRecord.of(before, done) if before else None,
        trainings=_newest_runs([row for row in rows if row.step == "train"])[:NUM_TRAININGS],
    )


def _dates(runs: DataFrame) -> tuple[list[date], list[date], list[date]]:
    """Return the nights' dates, newest first; those that were published; those of the newest trainings."""
    place = F.struct(F.coalesce("run_order", F.lit(0)).alias("order"), "started_at")
    by_date = runs.groupBy("run_date", "step").agg(
        F.max(place).alias("place"), F.max(F.col("status") == "done").alias("is_done")
    )
    groups = by_date.orderBy(F.col("place").desc()).collect()
    dates = {group["run_date"] for group in groups if group["step"] in NIGHT}
    published = [group["run_date"] for group in groups if group["step"] == "publish" and group["is_done"]]
    trained = [group["run_date"] for group in groups if group["step"] == "train"]
    return sorted(dates, reverse=True), published, trained[:NUM_TRAININGS]


def _broken_rules(row: RunRow) -> list[str]:
    """Return the rules by which a step failed. Older versions named them in the message alone."""
    if row.broken is not None:
        return row.broken
    message = row.message or ""
    return re.findall(r"gates\.(\w+):", message) if message.startswith("GateError") else []


def _in_order(rows: Mapping[str, RunRow]) -> dict[str, RunRow]:
    """Return the rows by step, in the order of the night."""
    return {step: rows[step] for step in NIGHT if step in rows}


def _newest_runs(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return the newest row of each run and date, newest first."""
    newest = {(row.run_id, row.run_date): row for row in sorted(rows, key=place)}
    return sorted(newest.values(), key=place, reverse=True)

"""Records of nights in the table `runs`, for people."""

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
from allmrec.runtime.runs import NIGHT, RunRow, as_run_row, sort_key

NUM_TRAININGS = 3
"""Number of trainings that are shown, the newest."""
NUM_NAMED_DATES = 10
"""Number of run dates that an error names, the newest."""


@dataclass(frozen=True)
class NightRecord:
    """The rows of a run date: the newest and the newest ended."""

    run_date: date
    rows: Mapping[str, RunRow]
    ended: Mapping[str, RunRow]

    @classmethod
    def of(cls, run_date: date, rows: Iterable[RunRow]) -> NightRecord:
        """Return the night of a date. `rows` may contain other dates and steps."""
        own = sorted((row for row in rows if row.run_date == run_date), key=sort_key)
        newest = {row.step: row for row in own}
        ended = {row.step: row for row in own if row.status != "started"}
        return cls(run_date, _in_order(newest), _in_order(ended))

    @property
    def newest(self) -> RunRow:
        """The newest row of all steps."""
        return max(self.rows.values(), key=sort_key)

    @property
    def status(self) -> str:
        """`done`, or the first unfinished step, or the last finished step."""
        for step, row in self.rows.items():
            if row.status != "done":
                return f"{row.status} {step}"
        return "done" if "publish" in self.rows else f"done to {list(self.rows)[-1]}"

    @property
    def counts(self) -> dict[str, int]:
        """Counts of scoring and rejected rows; before scoring, the counts of `sequences`."""
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
        """The figures that the rules measured."""
        return {rule: value for row in self.rows.values() for rule, value in row.gates.items()}

    @property
    def overridden(self) -> list[str]:
        """The broken rules that were overridden."""
        return [rule for row in self.rows.values() for rule in row.overridden or []]

    @property
    def broken(self) -> list[str]:
        """The rules that made a step fail."""
        failed = (row for row in self.rows.values() if row.status == "failed")
        return [rule for row in failed for rule in _broken_rules(row)]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each step that has ended."""
        timings = {step: row.timings for step, row in self.ended.items()}
        return {step: parts["all"] for step, parts in timings.items() if "all" in parts}

    def seconds_of(self, step: str) -> float | None:
        """Return the seconds of a step, or None before its end."""
        return self.seconds.get(step)

    @property
    def llm_dtype(self) -> str | None:
        """The number type that the LLM computed in."""
        return self._of("score").llm_dtype or self._of("candidates").llm_dtype

    def count(self, name: str) -> int | None:
        """Return one of `counts`. Scored nights have 0 for missing names, others None."""
        return self.counts.get(name, 0 if "users_out" in self.counts and name != "rejected_rows" else None)

    def _of(self, step: str) -> RunRow:
        """Return the newest row of a step, or an empty row."""
        return self.rows.get(step, RunRow("", step, "", self.newest.started_at))


class Records(NamedTuple):
    """The rows of `runs` that are shown."""

    listed: list[NightRecord]
    """The newest nights, newest first."""
    night: NightRecord
    """The night that is shown in detail."""
    before: NightRecord | None
    """The last published night before it, with its done rows. None if there is none."""
    trainings: list[RunRow]
    """The newest row of each of the newest trainings, newest first."""


def read_nights(context: Context, run_date: date | None, last: int) -> Records:
    """Return the shown nights. Raises InputError where the table or the night is missing."""
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
    """Return the dates of nights, published nights and trainings, newest first."""
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
    """Return the rules that made a step fail."""
    if row.broken is not None:
        return row.broken
    message = row.message or ""
    return re.findall(r"gates\.(\w+):", message) if message.startswith("GateError") else []


def _in_order(rows: Mapping[str, RunRow]) -> dict[str, RunRow]:
    """Return the rows by step, in the order of the night."""
    return {step: rows[step] for step in NIGHT if step in rows}


def _newest_runs(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return the newest row of each run and date, newest first."""
    newest = {(row.run_id, row.run_date): row for row in sorted(rows, key=sort_key)}
    return sorted(newest.values(), key=sort_key, reverse=True)

"""What `allmrec runs` shows: the newest row of every step counts, and numbers are whole at any width."""

from __future__ import annotations

import datetime as dt
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rich.console import Console, Group

from allmrec.config import load
from allmrec.errors import InputError
from allmrec.reporting import Report
from allmrec.runtime import runs
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES
from allmrec.views.night_records import NightRecord
from allmrec.views.nights import nights

OLD, DONE, FAILED, KILLED = (dt.date(2026, 5, 30) + dt.timedelta(days=number) for number in range(4))
Rows = list[dict[str, Any]]
BUNDLE, RUN = "0123456789abcdef", "20260531T010000-0a1b2c3d"
MESSAGE = (
    "GateError: night of 2026-06-01: gates.max_users_change: 1,000 users after 2,400, 0.5833 where at most "
    "0.5 is allowed (look at whether the log is whole); nothing of it was published; to publish all the "
    "same: --override max_users_change"
)
SEQUENCES = {"users_out": 2500, "users_without_history": 20, "rejected_rows": 31, "good_rows": 40000}
SCORE = {
    "users_in": 2500,
    "users_out": 2400,
    "source_llm": 1500,
    "source_cf": 880,
    "source_popular": 20,
    "fallback_no_history": 20,
    "fallback_inactive": 800,
    "fallback_out_of_memory": 80,
    "carried": 1234,
    "scored_llm": 400,
    "unservable_saw_every_item": 100,
    "unservable": 100,
}
OLD_SCORE = {"users_in": 2000, "users_out": 2000, "source_llm": 1980, "source_popular": 20, "unservable": 0}
GATES = {"max_lost_users": 0.0, "max_users_change": 0.2, "max_short_share": 0.125, "max_top1_rise": 0.01}


def run_id(began: dt.datetime) -> str:
    return f"{began:%Y%m%dT%H%M%S}-0a1b2c3d"


def put(rows: Rows, step: str, run_date: dt.date, began: dt.datetime, ended: str, **values: Any) -> None:
    """Record a step as it is now: a row when it begins and, where `ended` says how, one at its end.

    The run began at the hour of `began`, the step at `began` itself.
    """
    run = began.replace(minute=0)
    row = {"run_id": run_id(run), "step": step, "run_date": run_date, "started_at": began}
    row |= {"run_order": int(run.timestamp() * 1e9), "llm_dtype": "bfloat16", "fingerprint": "f"}
    rows.append(row | {"status": "started"})
    if ended:
        row |= {"status": ended, "finished_at": began + dt.timedelta(minutes=1), "bundle_id": BUNDLE}
        rows.append(row | values)


def put_old(rows: Rows, step: str, began: dt.datetime, **values: Any) -> None:
    """Record a step as version 0.1.0 did: one row, without the columns that are new since."""
    run = run_id(began.replace(minute=0))
    row = {"run_id": run, "step": step, "run_date": OLD, "started_at": began, "status": "done"}
    rows.append(row | {"timings": {"write": 2.0, "all": 10.0}, "bundle_id": BUNDLE} | values)


def write(tables: Tables, rows: Rows) -> None:
    """Write rows of `runs`: one by itself, the others in one commit."""
    tables.append("runs", rows[0])
    schema = TABLES["runs"].schema
    values = [tuple(row.get(name) for name in schema.fieldNames()) for row in rows]
    assert tables.merge("runs", tables.spark.createDataFrame(values, schema), update=False) == len(rows) - 1


def put_nights(rows: Rows) -> None:
    """Record four nights: one of version 0.1.0, one with an overridden gate, one that failed, one killed."""
    old = dt.datetime(2026, 5, 30, 1)
    put_old(rows, "sequences", old, counts={"users_out": 2000, "rejected_rows": 31})
    put_old(rows, "candidates", old + dt.timedelta(minutes=1))
    shape = {"users": 2000.0, "coverage": 400.0, "top1_share": 0.05}
    put_old(rows, "score", old + dt.timedelta(minutes=2), counts=OLD_SCORE, figures=shape)
    put_old(rows, "publish", old + dt.timedelta(minutes=3))
    night = dt.datetime(2026, 5, 31, 1)
    took = {"read": 3.5, "write": 1.0, "all": 4.6}
    put(rows, "sequences", DONE, night, "done", counts=SEQUENCES, timings=took)
    put(rows, "candidates", DONE, night.replace(minute=1), "done", timings={"retrieve": 7.0, "all": 7.5})
    took = {"bundle": 1.0, "score": 1641.2, "gates": 0.4, "write": 3.0, "all": 1645.8}
    shape = {"users": 2400.0, "coverage": 380.0, "top1_share": 0.0625}
    gates = {"gates": GATES, "overridden": ["max_short_share"], "figures": shape, "counts": SCORE}
    put(rows, "score", DONE, night.replace(minute=2), "done", timings=took, **gates)
    took = {"write": 2.0, "all": 2.1}
    gates = {"gates": {"max_unpublished_share": 0.0}, "figures": shape}
    put(rows, "publish", DONE, night.replace(minute=40), "done", timings=took, **gates)
    night = dt.datetime(2026, 6, 1, 1)
    put(rows, "sequences", FAILED, night, "done", counts=SEQUENCES, timings={"all": 4.0})
    put(rows, "candidates", FAILED, night.replace(minute=1), "done", timings={"all": 8.0})
    failed = {"timings": {"score": 1.0, "all": 9.0}, "message": MESSAGE}
    gates = {"gates": GATES | {"max_short_share": 0.0, "max_users_change": 0.5833}}
    put(rows, "score", FAILED, night.replace(minute=2), "failed", **failed, **gates)
    put_killed_night(rows)


def put_killed_night(rows: Rows) -> None:
    """Record a night whose first run failed, and whose second one, an hour later, was killed in scoring."""
    first, second = dt.datetime(2026, 6, 2, 1), dt.datetime(2026, 6, 2, 2)
    failed = {"message": "SparkException: no space", "timings": {"all": 1.0}}
    put(rows, "sequences", KILLED, first, "failed", **failed)
    put(rows, "sequences", KILLED, second, "done", counts=SEQUENCES, timings={"read": 2.0, "all": 3.0})
    put(rows, "candidates", KILLED, second.replace(minute=1), "done", timings={"all": 8.0})
    put(rows, "score", KILLED, second.replace(minute=2), "")


def put_trainings(rows: Rows) -> None:
    """Record four trainings: the newest of the earliest date failed, the oldest is not to be shown."""
    figures = {"cf_NDCG@10": 0.25, "stage2_Hit@1_after": 0.5, "stage2_seconds": 9.0, "stage1_loss": 2.0}
    for day in (1, 2, 3):
        date, began = dt.date(2026, 5, day), dt.datetime(2026, 5, day, 20)
        put(rows, "train", date, began, "done", figures=figures, timings={"all": 100.0 + day})
    failed = dt.datetime(2026, 5, 4, 20)
    put(rows, "train", dt.date(2026, 5, 1), failed, "failed", message="x", timings={"all": 1.0})


@pytest.fixture(scope="module")
def context(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The context of four nights and four trainings; no test writes."""
    root = tmp_path_factory.mktemp("history") / "tables"
    rows: Rows = []
    put_nights(rows)
    put_trainings(rows)
    write(Tables(spark, str(root)), rows)
    return opened(spark, root)


def opened(spark: SparkSession, root: Path | str, *overrides: str) -> Context:
    return Context.open(spark, load([], [f"tables.root={root}", *overrides]), Report())


def rendered(context: Context, run_date: dt.date | None = None, last: int = 10, width: int = 200) -> str:
    return printed(nights(context, run_date, last), width)


def printed(shown: Group, width: int) -> str:
    text = StringIO()
    Console(file=text, width=width).print(shown)
    return text.getvalue()


def part(text: str, title: str) -> dict[str, list[str]]:
    """Return the rows below a title by their first cell; cells stand two spaces apart."""
    lines = text[text.index(title) :].split("\n")
    start = next(number for number, line in enumerate(lines) if "──" in line) + 1
    rows = [re.split(r" {2,}", line.strip()) for line in lines[start:]]
    end = next(number for number, row in enumerate(rows) if row == [""])
    return {row[0]: row[1:] for row in rows[:end]}


def test_every_night_is_a_row_with_its_numbers(context: Context) -> None:
    rows = part(rendered(context, width=220), "Nights, newest first")
    assert list(rows) == [str(day) for day in (KILLED, FAILED, DONE, OLD)]
    done = ["done", "05-31 01:00", "1,660.0", "max_short_share overridden", "bfloat16", RUN]
    old = ["done", "05-30 01:00", "40.0", "–", "–", "20260530T010000-0a1b2c3d"]
    assert rows[str(DONE)] == [*done, "2,500", "2,400", "1,500", "880", "20", "1,234", "100", "880"]
    assert rows[str(OLD)] == [*old, "2,000", "2,000", "1,980", "0", "20", "0", "0", "0"]
    nothing = ["–"] * 7
    assert rows[str(FAILED)][:4] == ["failed score", "06-01 01:00", "21.0", "max_users_change failed"]
    assert rows[str(FAILED)][6:] == ["2,500", *nothing]
    assert rows[str(KILLED)][:2] == ["started score", "06-02 02:00"]
    assert rows[str(KILLED)][2:4] == ["11.0", "–"]


@pytest.mark.parametrize("run_date", [OLD, DONE, FAILED, KILLED])
def test_at_every_width_all_lines_fit_and_no_number_is_cut(context: Context, run_date: dt.date) -> None:
    shown = nights(context, run_date, 10)
    number = r"(?<![\w:.-])[+-]?\d[\d,]*(?:\.\d+)?%?(?![\w:-])"
    numbers = sorted(re.findall(number, printed(shown, 300)))
    for width in (60, 80, 100, 120, 140, 200):
        text = printed(shown, width)
        assert max(map(len, text.split("\n"))) <= width
        assert "…" not in text
        assert sorted(re.findall(number, text)) == numbers


def test_at_80_columns_the_users_are_a_second_table_and_the_run_is_left_out(context: Context) -> None:
    text = rendered(context, width=80)
    assert part(text, "Nights")[str(KILLED)] == ["started score", "06-02 02:00", "11.0", "–", "bfloat16"]
    assert part(text, "users  users")[str(DONE)][:3] == ["2,500", "2,400", "1,500"]


def test_a_night_is_shown_step_by_step(context: Context) -> None:
    rows = part(rendered(context, DONE), "step by step")
    assert rows == {
        "sequences": ["done", "05-31 01:00", "4.6", "read 3.5, write 1.0", BUNDLE, RUN],
        "candidates": ["done", "05-31 01:01", "7.5", "retrieve 7.0", BUNDLE, RUN],
        "score": ["done", "05-31 01:02", "1,645.8", "score 1,641.2, write 3.0", BUNDLE, RUN],
        "publish": ["done", "05-31 01:40", "2.1", "write 2.0", BUNDLE, RUN],
    }


def test_the_newest_night_is_the_default_and_a_step_without_end_says_so(context: Context) -> None:
    text = rendered(context)
    assert f"Night of {KILLED}, step by step" in text
    assert part(text, "step by step")["score"][0] == "started"
    assert "score has no end: it was killed, or is at work" in text
    assert "no space" not in text


def test_the_message_of_a_failed_step_is_there_whole(context: Context) -> None:
    assert f"score failed: {MESSAGE}" in " ".join(rendered(context, FAILED, width=80).split())


def test_a_night_stands_beside_the_last_published_one(context: Context) -> None:
    text = rendered(context, DONE)
    assert f"Night of {DONE} against {OLD}, the last published one before it" in text
    assert part(text, "against") == {
        "users in": ["2,500", "2,000", "+500", "+25.0%"],
        "users out": ["2,400", "2,000", "+400", "+20.0%"],
        "source cf": ["880", "0", "+880", "–"],
        "source llm": ["1,500", "1,980", "-480", "-24.2%"],
        "source popular": ["20", "20", "0", "+0.0%"],
        "fallback inactive": ["800", "0", "+800", "–"],
        "fallback no_history": ["20", "0", "+20", "–"],
        "fallback out_of_memory": ["80", "0", "+80", "–"],
        "carried": ["1,234", "0", "+1,234", "–"],
        "unservable": ["100", "0", "+100", "–"],
        "unservable saw_every_item": ["100", "0", "+100", "–"],
        "rejected rows": ["31", "31", "0", "+0.0%"],
        "coverage": ["380", "400", "-20", "-5.0%"],
        "top-1 share": ["0.0625", "0.0500", "+0.0125", "+25.0%"],
        "seconds of sequences": ["4.6", "10.0", "-5.4", "-54.0%"],
        "seconds of candidates": ["7.5", "10.0", "-2.5", "-25.0%"],
        "seconds of score": ["1,645.8", "10.0", "+1,635.8", "+16,358.0%"],
        "seconds of publish": ["2.1", "10.0", "-7.9", "-79.0%"],
    }


def test_a_night_that_was_not_published_is_nobodys_night_before(context: Context) -> None:
    text = rendered(context, KILLED)
    assert f"against {DONE}, the last published one" in text
    assert part(text, "against")["users out"] == ["–", "2,400", "–", "–"]
    first = rendered(context, OLD)
    assert "none was published before it" in first
    assert part(first, "none was published")["users out"] == ["2,000"]


def test_rules_stand_beside_their_limits(context: Context, spark: SparkSession) -> None:
    rows = part(rendered(context, DONE), "Gates of")
    assert list(rows) == [rule for rule in context.config.gates.model_dump() if rule in rows]
    assert rows == {
        "max_lost_users": ["0", "0", "ok"],
        "max_users_change": ["0.2", "0.5", "ok"],
        "max_short_share": ["0.125", "0.1", "overridden"],
        "max_top1_rise": ["0.01", "0.2", "ok"],
        "max_unpublished_share": ["0", "0.05", "ok"],
    }
    off = opened(spark, context.tables.root, "gates.max_users_change=null", "gates.max_top1_rise=0.001")
    assert part(rendered(off, FAILED), "Gates of")["max_users_change"] == ["0.5833", "off", "broken"]
    assert part(rendered(off, DONE), "Gates of")["max_users_change"] == ["0.2", "off", "–"]
    assert part(rendered(off, DONE), "Gates of")["max_top1_rise"] == ["0.01", "0.001", "broken"]
    assert f"no rule was measured in the night of {OLD}" in rendered(context, OLD)


def test_the_newest_three_trainings_are_shown_with_their_figures(context: Context) -> None:
    text = rendered(context, width=220)
    lines = [re.split(r" {2,}", line.strip()) for line in text[text.index("Trainings") :].split("\n")]
    figures = "cf_NDCG@10 0.25, stage2_Hit@1_after 0.5"
    assert [line for line in lines if line[0].startswith("2026")] == [
        ["2026-05-01", "failed", BUNDLE, "1.0", "–"],
        ["2026-05-03", "done", BUNDLE, "103.0", figures],
        ["2026-05-02", "done", BUNDLE, "102.0", figures],
    ]


def test_what_counts_of_a_step_is_the_row_that_a_run_would_read(context: Context) -> None:
    rows = [runs.as_run_row(row.asDict()) for row in context.tables.read("runs").collect()]
    for shown in (OLD, DONE, FAILED, KILLED):
        night = NightRecord.of(shown, rows)
        for step in runs.NIGHT:
            expected = Night(context, shown).latest(step)
            assert night.rows.get(step) == expected, (shown, step)


def test_the_list_is_as_long_as_asked_and_another_night_can_be_shown(context: Context) -> None:
    text = rendered(context, DONE, last=1)
    assert list(part(text, "Nights, newest first")) == [str(KILLED)]
    assert f"Night of {DONE} against {OLD}" in text


def test_of_runs_that_began_out_of_order_the_one_with_the_higher_order_counts() -> None:
    day, noon = dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, 12)
    late = runs.RunRow("a", "score", "failed", noon, day, run_order=1)
    behind = runs.RunRow("b", "score", "started", noon - dt.timedelta(hours=1), day, run_order=2)
    assert NightRecord.of(day, [behind, late]).status == "started score"
    done = runs.RunRow("b", "score", "done", behind.started_at, day, run_order=2)
    assert NightRecord.of(day, [done, behind, late]).status == "done to score"


def test_without_the_night_an_error_says_which_are_there(
    context: Context, spark: SparkSession, tables: Tables
) -> None:
    with pytest.raises(InputError, match=f"no night of 2026-07-01, expected one of {KILLED}, .*{OLD}; check"):
        nights(context, dt.date(2026, 7, 1), 10)
    empty = opened(spark, tables.root)
    with pytest.raises(InputError, match=r"runs: no table below .*; run one"):
        nights(empty, None, 10)
    rows: Rows = []
    put(rows, "train", dt.date(2026, 5, 1), dt.datetime(2026, 5, 1, 20), "failed")
    write(tables, rows)
    with pytest.raises(InputError, match="runs: no night in it"):
        nights(empty, None, 10)


def test_a_shop_without_trainings_shows_none(spark: SparkSession, tables: Tables) -> None:
    rows: Rows = []
    put(rows, "sequences", DONE, dt.datetime(2026, 5, 31, 1), "done", counts=SEQUENCES, timings={"all": 4.6})
    write(tables, rows)
    text = rendered(opened(spark, tables.root))
    assert "Trainings" not in text
    assert part(text, "Nights")[str(DONE)][0] == "done to sequences"

"""What every step is given: frames that are released, runs that are recorded whatever happens. No JVM."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from py4j.protocol import Py4JNetworkError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

import allmrec
from allmrec.config import Config, fingerprint, load
from allmrec.errors import ConfigError, InputError, SetupError, TableError
from allmrec.reporting import Report
from allmrec.runtime import listeners
from allmrec.runtime.context import Context
from allmrec.runtime.night import Night, Step
from allmrec.runtime.processes import _of_each_process
from allmrec.runtime.runs import MAPS, NIGHT, RunRow, as_run_row
from allmrec.spark import progress
from allmrec.spark.cached_frames import CachedFrames
from allmrec.spark.secret_settings import keep_secret, without_secrets
from allmrec.tables.delta import Tables

DAY = date(2026, 6, 1)


class FakeFrame:
    """Stands in for a frame; says what was done to it."""

    def __init__(self, log: list[str], name: str, broken: bool = False) -> None:
        self.log, self.name, self.broken = log, name, broken

    def persist(self, level: object) -> FakeFrame:
        self.log.append(f"persist {self.name}")
        return self

    def unpersist(self) -> None:
        self.log.append(f"unpersist {self.name}")
        if self.broken:
            raise Py4JNetworkError("the JVM has ended")


class FakeTables:
    """Keeps the rows that are added; from `fails_at` on, adding one fails."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.marks: list[dict[str, Any]] = []
        self.fails_at = fails_at

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        assert name == "runs"
        if self.fails_at is not None and len(self.rows) >= self.fails_at:
            raise TableError("runs: the disk is full")
        self.rows.append(dict(row))

    @contextmanager
    def marked_commits(self, mark: Mapping[str, Any]) -> Iterator[None]:
        """Keeps the mark."""
        self.marks.append(dict(mark))
        yield


def context_of(tables: FakeTables, report: Report) -> Context:
    return Context(cast(SparkSession, None), Config(), report, "run-1", cast(Tables, tables), CachedFrames())


def score(context: Context) -> Step:
    return Step(Night(context, DAY), "score", "f" * 16)


def frame(log: list[str], name: str, broken: bool = False) -> DataFrame:
    return cast(DataFrame, FakeFrame(log, name, broken))


def test_frames_are_released_in_reverse_order_also_after_an_error() -> None:
    log: list[str] = []

    def fail() -> None:
        with CachedFrames() as frames:
            frames.keep(frame(log, "a"))
            frames.keep(frame(log, "b", broken=True))
            raise InputError("first")

    with pytest.raises(InputError, match="first"):
        fail()
    assert log == ["persist a", "persist b", "unpersist b", "unpersist a"]


def test_a_named_frame_is_made_once_and_again_after_its_release() -> None:
    log: list[str] = []
    frames = CachedFrames()
    for _ in range(2):
        with frames:
            assert frames.keep_once("a", lambda: frame(log, "a")) is frames.keep_once(
                "a", lambda: frame(log, "b")
            )
    assert log == ["persist a", "unpersist a"] * 2


def test_a_step_leaves_a_started_and_then_a_done_row() -> None:
    tables, lines, log = FakeTables(), list[str](), list[str]()
    with score(context_of(tables, Report(lines.append))).recorded({"items": 3}, {}) as run:
        with run.part("write", "write it"):
            run.keep(frame(log, "a"))
        run.counts, run.figures, run.bundle_id = {"users_in": 2}, {"loss": 0.5}, "b" * 16
    started, done = tables.rows
    assert (started["status"], done["status"]) == ("started", "done")
    assert started["finished_at"] is None
    assert started["counts"] is None
    assert done["finished_at"] >= done["started_at"] == started["started_at"]
    assert (done["run_id"], done["step"], done["run_date"], done["fingerprint"]) == (
        "run-1",
        "score",
        DAY,
        "f" * 16,
    )
    assert (done["counts"], done["figures"], done["bundle_id"]) == ({"users_in": 2}, {"loss": 0.5}, "b" * 16)
    assert done["input_versions"] == {"items": 3}
    assert tables.marks == [
        {
            "run_id": "run-1",
            "step": "score",
            "run_date": "2026-06-01",
            "fingerprint": "f" * 16,
            "input_versions": {"items": 3},
        }
    ]
    assert set(done["timings"]) == {"write", "all"}
    assert log == ["persist a", "unpersist a"]
    assert lines[:2] == ["score 2026-06-01: started", "score 2026-06-01: write: write it"]


def test_maps_of_a_record_are_never_null_and_are_stored_as_they_were_read() -> None:
    began = datetime(2026, 6, 1, tzinfo=timezone.utc)
    stored: dict[str, object] = {"run_id": "run-1", "step": "score", "status": "done", "started_at": began}
    stored |= {"counts": {}, "figures": {"loss": 0.5}, "input_versions": None, "timings": None}
    stored |= {"outputs": None, "gates": None, "table_ids": None, "broken": None}
    row = as_run_row(stored)
    assert all(getattr(row, name).get("users") is None for name in MAPS)
    columns = row.columns()
    assert {name: columns[name] for name in stored} == stored


def test_a_step_that_fails_leaves_its_error_and_its_timings() -> None:
    tables, log = FakeTables(), list[str]()

    def fail() -> None:
        with (
            score(context_of(tables, Report())).recorded({}, {}) as run,
            run.part("read", "read it"),
        ):
            run.keep(frame(log, "a"))
            raise InputError("no user")

    with pytest.raises(InputError, match="no user"):
        fail()
    failed = tables.rows[-1]
    assert (failed["status"], failed["message"]) == ("failed", "InputError: no user")
    assert set(failed["timings"]) == {"read", "all"}
    assert failed["counts"] is failed["bundle_id"] is failed["outputs"] is None
    assert log == ["persist a", "unpersist a"]


class Heard:
    """A listener that keeps what it hears."""

    rows: list[tuple[str, RunRow]]

    def started(self, row: RunRow) -> None:
        self.rows.append(("started", row))

    def ended(self, row: RunRow) -> None:
        self.rows.append(("ended", row))


class Deaf:
    """A listener that fails at every call."""

    def started(self, row: RunRow) -> None:
        raise ConnectionError("no such host:\nHUNTER2.example")

    def ended(self, row: RunRow) -> None:
        raise ValueError(row.status)


class Missing:
    """A listener that cannot be made."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'mlflow'")


LISTENING = load([], ["reporting.listeners=[deaf, missing, heard]"])


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, RunRow]]:
    """What a listener hears, beside others that fail."""
    monkeypatch.setattr(Heard, "rows", [], raising=False)
    for name, listener in (("heard", Heard), ("deaf", Deaf), ("missing", Missing)):
        monkeypatch.setitem(listeners.LISTENERS, name, listener)
    keep_secret(["HUNTER2.example"])
    return Heard.rows


def test_a_listener_hears_the_rows_of_a_step_that_is_done(heard: list[tuple[str, RunRow]]) -> None:
    tables, lines = FakeTables(), list[str]()
    with score(replace(context_of(tables, Report(lines.append)), config=LISTENING)).recorded({}, {}) as run:
        assert [call for call, _ in heard] == ["started"]
        run.counts = {"users_in": 2}
    assert [call for call, _ in heard] == ["started", "ended"]
    assert [row.columns() for _, row in heard] == tables.rows
    assert heard[-1][1].counts == {"users_in": 2}
    failed = [line for line in lines if "listener" in line]
    assert failed == [
        f"score 2026-06-01: warning: listener {what}; the step goes on without it"
        for what in (
            "missing failed (ModuleNotFoundError: No module named 'mlflow')",
            "deaf failed (ConnectionError: no such host: ***)",
            "deaf failed (ValueError: done)",
        )
    ]


def test_a_listener_hears_the_rows_of_a_step_that_fails(heard: list[tuple[str, RunRow]]) -> None:
    for tables in (FakeTables(), FakeTables(fails_at=1)):
        context = replace(context_of(tables, Report()), config=LISTENING)
        heard.clear()
        with pytest.raises(InputError, match="no user"), score(context).recorded({}, {}):
            raise InputError("no user")
        assert [(call, row.status) for call, row in heard] == [("started", "started"), ("ended", "failed")]
        assert heard[-1][1].message == "InputError: no user"


def test_a_listener_that_nobody_knows_is_refused_with_the_known_ones(
    heard: list[tuple[str, RunRow]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match=r"^reporting\.listeners\[1\]: pager, expected one of deaf, heard, m"
    ):
        listeners.check_listeners(("heard", "pager"))
    with pytest.raises(ConfigError, match="pager"):
        Context.open(cast(SparkSession, None), load([], ["reporting.listeners=[pager]"]), Report())
    monkeypatch.setattr(listeners, "LISTENERS", {})
    with pytest.raises(ConfigError, match=r"listeners\[0\]: pager, expected none, because none is installed"):
        listeners.check_listeners(("pager",))


def test_every_step_with_rows_in_runs_is_recorded_and_so_is_heard() -> None:
    package = Path(allmrec.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    writers = {str(path.relative_to(package)) for path, text in sources.items() if 'append("runs"' in text}
    assert writers == {"runtime/night.py", "steps/forget.py"}, "forget writes rows of other steps again"
    recorded = {path.stem for path, text in sources.items() if ".recorded(" in text}
    assert recorded == {*NIGHT, "train", "evaluate", "maintain", "forget"}


def test_neither_the_message_nor_the_hash_of_a_run_holds_a_value_of_sparks_settings() -> None:
    tables = FakeTables()
    secret = load([], ["spark.settings.spark.hadoop.fs.s3a.secret.key=HUNTER2"])
    context = replace(context_of(tables, Report()), config=secret)
    keep_secret(secret.spark.settings.values())

    def fail() -> None:
        with score(context).recorded({}, {}):
            raise PySparkException("Status Code: 403, secret HUNTER2 is wrong")

    with pytest.raises(SetupError, match=r"Status Code: 403, secret \*\*\* is wrong") as error:
        fail()
    assert "HUNTER2" not in str(error.value)
    assert tables.rows[-1]["message"].startswith("SetupError: Spark: Status Code: 403, secret *** is wrong")
    assert {row["config_hash"] for row in tables.rows} == {fingerprint(config=Config())}


def test_the_processes_of_a_training_are_sent_no_setting_of_sparks() -> None:
    secret = load([], ["spark.settings.spark.hadoop.fs.s3a.secret.key=HUNTER2", "training.num_threads=2"])
    sent = _of_each_process(secret, on_this_machine=True)
    assert "HUNTER2" not in sent.model_dump_json()
    assert sent.training.num_threads == 2


def test_a_folder_of_this_machine_stays_readable_in_errors(tmp_path: Path) -> None:
    keep_secret([str(tmp_path), "a very secret value", "4g"])
    line = f"{tmp_path}/x: a very secret value, 4g, secret"
    assert without_secrets(line) == f"{tmp_path}/x: ***, 4g, secret"


def test_a_failure_that_cannot_be_recorded_does_not_hide_the_first_error() -> None:
    lines: list[str] = []
    context = context_of(FakeTables(fails_at=1), Report(lines.append))
    with pytest.raises(InputError, match="no user"), score(context).recorded({}, {}):
        raise InputError("no user")
    assert lines[-1] == "score 2026-06-01: failed, and runs cannot be written: runs: the disk is full"


def test_a_new_run_shares_all_but_the_id() -> None:
    context = context_of(FakeTables(), Report())
    again = context.with_new_run()
    assert again.run_id != context.run_id
    assert again.frames is context.frames
    assert again.tables is context.tables


def test_what_tasks_have_counted_is_reported_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.001)
    counter = SimpleNamespace(value=0)
    spark = cast(
        SparkSession, SimpleNamespace(sparkContext=SimpleNamespace(accumulator=lambda start: counter))
    )
    halfway, lines = threading.Event(), list[str]()

    def write(line: str) -> None:
        lines.append(line)
        if "5 / 10 users" in line:
            halfway.set()

    before = threading.active_count()
    with progress.counting(spark, Report(write, every_seconds=0), "score", 10, "users"):
        counter.value = 5
        assert halfway.wait(10), lines
    assert threading.active_count() == before
    assert all(line.startswith("score: ") for line in lines)

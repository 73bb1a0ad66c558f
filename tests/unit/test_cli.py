"""The command line: small, frozen, and one line for a mistake the user can mend."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from py4j.protocol import Py4JNetworkError
from pyspark.errors import PySparkException
from rich.console import Console

from allmrec.cli import SPARK_LOG_LINES, cli
from allmrec.errors import (
    BundleError,
    ConfigError,
    GateError,
    InputError,
    PassingError,
    SetupError,
    SupersededError,
    TableError,
)

OPTIONS = {
    "demo": {"config", "overrides"},
    "import files": {"config", "overrides", "interactions", "items", "users"},
    "import amazon": {"config", "overrides", "reviews", "metadata"},
    "import movielens": {"config", "overrides", "folder"},
    "import steam": {"config", "overrides", "reviews", "games"},
    "sequences": {"config", "overrides", "run_date", "force", "refresh"},
    "candidates": {"config", "overrides", "run_date", "force"},
    "score": {"config", "overrides", "run_date", "force", "full", "max_minutes", "override"},
    "publish": {"config", "overrides", "run_date", "force", "override"},
    "train": {"config", "overrides", "run_date", "force", "refresh"},
    "nightly": {"config", "overrides", "run_date", "force", "refresh", "full", "max_minutes", "override"},
    "backfill": {
        *("config", "overrides", "first", "last"),
        *("force", "refresh", "full", "max_minutes", "override"),
    },
    "evaluate": {"config", "overrides", "run_date", "html"},
    "compare": {"config", "overrides", "first", "second"},
    "maintain": {"config", "overrides", "dry_run"},
    "forget": {"config", "overrides", "user"},
    "export": {"config", "overrides", "table", "run_date", "form", "per", "out"},
    "runs": {"config", "overrides", "run_date", "last"},
    "show": {"config", "overrides", "run_date", "user"},
    "doctor": {"config", "overrides"},
}
"""Everything else belongs into the configuration, so that a run can be repeated from its YAML."""


def commands(group: click.Group, prefix: str = "") -> dict[str, set[str]]:
    options: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            options |= commands(command, f"{prefix}{name} ")
        else:
            options[prefix + name] = {str(parameter.name) for parameter in command.params}
    return options


def test_no_command_gains_an_option_unnoticed() -> None:
    assert commands(cli) == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert "--config" in result.output


def test_a_bad_setting_is_one_line_and_exit_code_2() -> None:
    command = [
        str(Path(sys.executable).parent / "allmrec"),
        "nightly",
        "--run-date",
        "2026-06-01",
        "--set",
        "scoring.top_k=0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: scoring.top_k: 0, expected an integer ≥ 1"


def test_an_old_spelling_of_a_setting_is_one_line_that_names_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("allmrec.cli.create_session", refuse)
    result = CliRunner().invoke(cli, ["train", "--set", "cf.num_blocks=2"])
    assert result.stderr.splitlines() == [
        "warning: cf.num_blocks is called cf.sasrec.num_blocks now; rename it",
        "error: no Java found",
    ]


def test_a_night_needs_its_date() -> None:
    result = CliRunner().invoke(cli, ["nightly"])
    assert result.exit_code == 2
    assert "--run-date" in result.output


def test_a_date_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(cli, ["nightly", "--run-date", "yesterday"])
    assert result.exit_code == 2
    assert "YYYY-MM-DD" in result.output


@pytest.mark.reported
@pytest.mark.parametrize(
    "arguments",
    [
        ["nightly", "--run-date"],
        ["backfill", "--to", "2026-06-01", "--from"],
        ["backfill", "--from", "2026-06-01", "--to"],
        ["show", "somebody", "--run-date"],
        ["runs", "--run-date"],
        ["train", "--run-date"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("days", [None, 367, 3650])
@pytest.mark.parametrize("edge", ["0001-01-01", "1970-01-01", "9999-12-31"])
def test_a_date_outside_of_the_calendar_of_nights_is_refused_in_one_line(
    arguments: list[str], days: int | None, edge: str
) -> None:
    today = datetime.now(timezone.utc).date()
    date = edge if days is None else str(today + timedelta(days=days))
    result = CliRunner().invoke(cli, [*arguments, date])
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert f"{date}, expected a date from 1970-01-02 to " in line


@pytest.mark.parametrize("days", [0, 1, 366])
def test_a_date_up_to_a_year_ahead_can_be_run(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allmrec.cli.create_session", refuse)
    date = datetime.now(timezone.utc).date() + timedelta(days=days)
    result = CliRunner().invoke(cli, ["nightly", "--run-date", str(date)])
    assert result.stderr == "error: no Java found\n"


def refuse(*_: object) -> None:
    """Stands in for a start of Spark."""
    raise SetupError("no Java found")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nightly"], "error: Missing option '--run-date'; see allmrec nightly --help"),
        (["nigthly"], "error: No such command 'nigthly'. Did you mean 'nightly'?; see allmrec --help"),
        (["maintain", "--dryrun"], "error: No such option '--dryrun'. Did you mean"),
        (["runs", "--last", "0"], "error: Invalid value for '--last': 0 is not in the range x>=1"),
        (["show", "-1"], "error: No such option: -1; an id that begins with a hyphen comes after --: "),
        (["show", "-abc"], "allmrec show -- -abc"),
        (["forget", "-1"], "allmrec forget -- -1"),
    ],
)
def test_a_mistake_in_the_options_is_one_line(arguments: list[str], line: str) -> None:
    result = CliRunner().invoke(cli, arguments, prog_name="allmrec")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert line in result.stderr


def test_an_id_that_begins_with_a_hyphen_comes_after_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allmrec.cli.create_session", refuse)
    assert CliRunner().invoke(cli, ["show", "--", "-1"]).stderr == "error: no Java found\n"


@pytest.fixture
def spark_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Spark has written: forty numbered lines."""
    path = tmp_path / "spark.log"
    path.write_text("".join(f"line {number}\n" for number in range(40)), encoding="utf-8")
    monkeypatch.setattr("allmrec.cli.spark_log", lambda: path)
    return path


def failing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[str, BaseException | None]:
    """Return what a command that fails with `error` says, and what it raises in the end."""

    def fail(*_: object) -> None:
        raise error

    log = io.StringIO()
    monkeypatch.setattr("allmrec.cli.create_session", fail)
    monkeypatch.setattr("allmrec.cli.log", lambda: Console(file=log, soft_wrap=True))
    result = CliRunner().invoke(cli, ["show", "somebody"])
    return log.getvalue(), result.exception


def test_an_unexpected_error_is_raised_after_the_end_of_sparks_log(
    spark_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, error = failing(RuntimeError("a defect"), monkeypatch)
    assert isinstance(error, RuntimeError)
    title, *lines = output.splitlines()
    assert str(spark_log) in title
    assert [line.split(maxsplit=2)[2].strip() for line in lines] == [
        f"line {number}" for number in range(40 - SPARK_LOG_LINES, 40)
    ]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("scoring.top_k: 0"), 2, "scoring.top_k: 0"),
        (SetupError("no Java found"), 2, "no Java found"),
        (SupersededError("run a: run b is newer"), 2, "run a: run b is newer"),
        (PermissionError(13, "Permission denied", "/data/x"), 2, "/data/x: may not be written"),
        (TableError("items: half-written"), 3, "items: half-written"),
        (InputError("score of 2026-06-01: not run"), 3, "score of 2026-06-01: not run"),
        (BundleError("bundle b: damaged"), 3, "bundle b: damaged"),
        (GateError("gates.max_short_share: 1"), 3, "gates.max_short_share: 1"),
        (PassingError("runs: conflict"), 4, "runs: conflict"),
        (OSError(28, "No space left on device", "/data/x"), 4, "No space left on the disk (/data/x)"),
        (ConnectionRefusedError(111, "Connection refused"), 4, "Spark's JVM has ended"),
        (Py4JNetworkError("Answer from Java side is empty"), 4, "Spark's JVM has ended"),
        (PySparkException("Job 3 cancelled"), 4, "Spark: Job 3 cancelled"),
        (PySparkException("x [DELTA_CONCURRENT_APPEND.X] y"), 4, "another run wrote to it"),
        (PySparkException("Caused: No space left on device"), 4, "the disk is full"),
        (
            PySparkException('Caused: Cannot run program "python": error=13, Permission denied'),
            2,
            "a worker cannot start its Python",
        ),
        (PySparkException("(DELTA_VERSIONS_NOT_CONTIGUOUS) y"), 3, "half-written"),
        (
            PySparkException("Traceback\nallmrec.errors.BundleError: bundle b: x is missing\n\tat java"),
            3,
            "bundle b: x is missing",
        ),
    ],
)
@pytest.mark.usefixtures("spark_log")
def test_every_error_that_somebody_can_mend_or_wait_out_is_one_line_with_its_exit_code(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, raised = failing(error, monkeypatch)
    assert isinstance(raised, SystemExit)
    assert raised.code == code
    last = output.splitlines()[-1]
    assert last.startswith("error: ")
    assert line in last
    assert "Traceback" not in output


def test_lines_of_json_name_run_step_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise SetupError("no Java found")

    monkeypatch.setattr("allmrec.cli.create_session", fail)
    result = CliRunner().invoke(cli, ["show", "somebody", "--set", "reporting.json_lines=true"])
    [line] = result.stderr.splitlines()
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "level": "error",
        "exit_code": "2",
        "message": "no Java found",
    }


JSON = ["--set", "reporting.json_lines=true"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ([*JSON], 2, "Missing option '--run-date'; see allmrec nightly --help"),
        (["--set=reporting.json_lines=true", "--confg", "x"], 2, "No such option '--confg'. Did you mean"),
        ([*JSON, "--run-date", "0001-01-01"], 2, "Invalid value for '--run-date': 0001-01-01, expected"),
        (["--run-date", "2026-06-01", "--set", "scoring.top_k=0", *JSON], 2, "scoring.top_k: 0, expected"),
        (["--run-date", "2026-06-01", "--config", "nowhere.yaml", *JSON], 2, "nowhere.yaml: no such file"),
        (
            ["--run-date", "2026-06-01", "--config", "json.yaml"],
            2,
            "json.yaml: line 3: the key seed is there",
        ),
        (["--run-date", "2026-06-01", "--config", "good.yaml", "extra"], 2, "Got unexpected extra argument"),
        (["--run-date", "2026-06-01", *JSON], 2, "no Java found"),
    ],
)
def test_every_line_is_json_also_of_mistakes_in_the_options(
    arguments: list[str],
    exit_code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "json.yaml").write_text("reporting: {json_lines: true}\nseed: 1\nseed: 2\n")
    (tmp_path / "good.yaml").write_text("reporting: {json_lines: true}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("allmrec.cli.create_session", refuse)
    result = CliRunner().invoke(cli, ["nightly", *arguments], prog_name="allmrec")
    assert result.exit_code == exit_code
    [line] = result.stderr.splitlines()
    told = json.loads(line)
    assert (told["level"], told["exit_code"]) == ("error", str(exit_code))
    assert told["message"].startswith(message)


def test_what_libraries_write_and_a_traceback_are_lines_of_json(tmp_path: Path) -> None:
    program = f"""
import logging, sys, warnings
import allmrec.cli
def fail(*_):
    warnings.warn("a library's warning")
    logging.getLogger("library").warning("a library's line")
    print('{{"already": "JSON"}}', file=sys.stderr)
    print("half a line", end="", file=sys.stderr)
    raise RuntimeError("a defect")
allmrec.cli.create_session = fail
sys.argv = ["allmrec", "nightly", "--run-date", "2026-06-01", *{JSON}]
allmrec.cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert {"already": "JSON"} in lines
    text = "\n".join(line.get("message", "") for line in lines)
    for part in (
        "UserWarning: a library's warning",
        "a library's line",
        "half a line",
        "RuntimeError: a defect",
    ):
        assert part in text


def test_a_file_without_the_setting_speaks_in_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("reporting: {json_lines: true}\n")
    arguments = ["nightly", "--config", str(tmp_path / "a.yaml"), "--set", "reporting.json_lines=false"]
    assert CliRunner().invoke(cli, arguments).stderr.startswith("error: Missing option")

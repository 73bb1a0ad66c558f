"""The command line: small, frozen, and one line for a mistake the user can mend."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from allmrec.cli import SPARK_LOG_LINES, cli
from allmrec.errors import SetupError

OPTIONS = {
    "demo": {"config", "overrides"},
    "import files": {"config", "overrides", "interactions", "items", "users"},
    "import amazon": {"config", "overrides", "reviews", "metadata"},
    "import movielens": {"config", "overrides", "folder"},
    "sequences": {"config", "overrides", "run_date"},
    "candidates": {"config", "overrides", "run_date"},
    "score": {"config", "overrides", "run_date"},
    "publish": {"config", "overrides", "run_date"},
    "train": {"config", "overrides", "run_date"},
    "nightly": {"config", "overrides", "run_date"},
    "backfill": {"config", "overrides", "first", "last"},
    "evaluate": {"config", "overrides", "run_date"},
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


def test_a_bad_setting_is_one_line_and_exit_code_1() -> None:
    command = [
        str(Path(sys.executable).parent / "allmrec"),
        "nightly",
        "--run-date",
        "2026-06-01",
        "--set",
        "scoring.top_k=0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: scoring.top_k: 0, expected an integer ≥ 1"


def test_a_night_needs_its_date() -> None:
    result = CliRunner().invoke(cli, ["nightly"])
    assert result.exit_code == 2
    assert "--run-date" in result.output


def test_a_date_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(cli, ["nightly", "--run-date", "yesterday"])
    assert result.exit_code == 2
    assert "YYYY-MM-DD" in result.output


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
    monkeypatch.setattr("allmrec.cli.LOG", Console(file=log, soft_wrap=True))
    result = CliRunner().invoke(cli, ["show", "somebody"])
    return log.getvalue(), result.exception


def test_an_unexpected_error_is_raised_after_the_end_of_sparks_log(
    spark_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, error = failing(RuntimeError("a defect"), monkeypatch)
    assert isinstance(error, RuntimeError)
    title, *lines = output.splitlines()
    assert str(spark_log) in title
    assert [line.strip() for line in lines] == [
        f"line {number}" for number in range(40 - SPARK_LOG_LINES, 40)
    ]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SetupError("no Java found"), "error: no Java found"),
        (OSError(28, "No space left on device", "/data/x"), "error: no space left on the disk (/data/x)"),
    ],
)
@pytest.mark.usefixtures("spark_log")
def test_an_error_that_the_user_can_mend_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, raised = failing(error, monkeypatch)
    assert isinstance(raised, SystemExit)
    assert raised.code == 1
    [only] = output.splitlines()
    assert only.startswith(line)

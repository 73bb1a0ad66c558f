"""The command line: small, frozen, and one line for a mistake the user can mend."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from allmrec.cli import cli

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
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = {str(parameter.name) for parameter in command.params}
    return found


def test_no_command_gains_an_option_unnoticed():
    assert commands(cli) == OPTIONS


@pytest.mark.parametrize("name", OPTIONS)
def test_every_command_explains_itself(name):
    result = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert "--config" in result.output


def test_a_bad_setting_is_one_line_and_exit_code_1():
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


def test_a_night_needs_its_date():
    result = CliRunner().invoke(cli, ["nightly"])
    assert result.exit_code == 2
    assert "--run-date" in result.output


def test_a_date_that_is_none_is_refused():
    result = CliRunner().invoke(cli, ["nightly", "--run-date", "yesterday"])
    assert result.exit_code == 2
    assert "YYYY-MM-DD" in result.output

"""Help, mistakes and reading commands load only the packages that they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.test_cli import OPTIONS

ROOT = Path(__file__).parents[2]
CONFIGURATION = {"pydantic", "yaml", "rich"}
SPARK = {"delta", "pandas", "py4j", "pyarrow", "pyspark"}
MODELS = {"petastorm", "safetensors", "sentence_transformers", "torch", "transformers"}
LARGE = MODELS | SPARK | {"numpy"}

PROGRAM = """
import contextlib, io, json, sys
from allmrec import cli
from allmrec.errors import SetupError

def refuse(*_):
    raise SetupError("no Java found")

cli.create_session = refuse
ends = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["allmrec", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    ends.append([code, stderr.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})])
print(json.dumps(ends))
"""
"""Runs commands in turn, without a start of Spark. Prints exit codes, error lines and packages."""

End = tuple[int, str, set[str]]


def ends_of(*commands: Sequence[str], cwd: Path = ROOT) -> list[End]:
    """Return exit code, standard error and loaded packages after each command of one process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [(code, stderr, set(packages)) for code, stderr, packages in json.loads(done.stdout)]


def test_help_and_version_load_neither_configuration_nor_a_large_package() -> None:
    commands = [
        ["--help"],
        ["--version"],
        ["import", "--help"],
        *([*name.split(), "--help"] for name in OPTIONS),
    ]
    for command, (code, stderr, packages) in zip(commands, ends_of(*commands), strict=True):
        assert (code, stderr) == (0, ""), command
        assert packages & (CONFIGURATION | LARGE) == set(), command


def test_a_mistake_in_options_or_configuration_loads_no_large_package(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("seed: [1\n")
    (tmp_path / "unknown.yaml").write_text("sed: 1\n")
    night = ["nightly", "--run-date", "2026-06-01"]
    commands = {
        ("nigthly",): "No such command 'nigthly'",
        ("import", "fiels"): "No such command 'fiels'",
        ("maintain", "--dryrun"): "No such option '--dryrun'",
        ("nightly",): "Missing option '--run-date'",
        ("nightly", "--run-date", "yesterday"): "expected YYYY-MM-DD",
        (*night, "--override", "max_shrot_share"): "'max_shrot_share' is not one of 'max_",
        (*night, "--config", "nowhere.yaml"): "nowhere.yaml: no such file",
        (*night, "--config", "bad.yaml"): "bad.yaml: ",
        (*night, "--config", "unknown.yaml"): "sed: unknown key, expected one of ",
        (*night, "--set", "scoring.top_k=0"): "scoring.top_k: 0, expected an integer",
        (*night, "--set", "reporting.json_lines=true", "--set", "sed=1"): "sed: unknown key",
    }
    for (command, line), (code, stderr, packages) in zip(
        commands.items(), ends_of(*commands, cwd=tmp_path), strict=True
    ):
        assert code == 2, command
        assert line in stderr
        assert packages & LARGE == set(), command


@pytest.mark.parametrize("command", [["runs"], ["show", "somebody"]], ids=" ".join)
def test_a_command_that_reads_tables_loads_no_model_library(command: list[str]) -> None:
    [(code, stderr, packages)] = ends_of(command)
    assert (code, stderr) == (2, "error: no Java found\n")
    assert "pyspark" in packages
    assert packages & MODELS == set()

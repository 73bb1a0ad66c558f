"""The jobs for spark-submit: each runs the command of its name, and says how to launch it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.command_lines import commands, mistakes
from tests.unit.test_cli import OPTIONS

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.py"))
FOR_A_PERSON_ONLY = {"demo", "show", "runs", "compare", "doctor"}


def command_of(job: Path) -> str:
    return job.stem.replace("_", " ")


def test_every_command_that_is_run_by_a_scheduler_is_a_job() -> None:
    assert {command_of(job) for job in JOBS} == OPTIONS.keys() - FOR_A_PERSON_ONLY


@pytest.mark.parametrize("job", JOBS, ids=command_of)
def test_a_job_runs_the_command_of_its_name(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr("allmrec.cli.main", lambda *command: calls.append(command))
    runpy.run_path(str(job), run_name="__main__")
    assert calls == [tuple(command_of(job).split())]


@pytest.mark.parametrize("job", JOBS, ids=command_of)
def test_a_jobs_launch_line_is_complete(job: Path) -> None:
    title, _, text = (runpy.run_path(str(job))["__doc__"]).partition("\n")
    assert title == f"`allmrec {command_of(job)}` as a Spark job."
    [launch] = commands(text)
    assert launch[0] == "spark-submit"
    assert f"jobs/{job.name}" in launch
    assert mistakes(launch) == []

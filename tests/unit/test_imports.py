"""Importing the package leaves nothing behind, and its command line needs none of the large packages."""

from __future__ import annotations

import configparser
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import allmrec
from allmrec.packages import RUNTIME

pytestmark = pytest.mark.reported

ROOT = Path(__file__).parents[2]
MODULES = sorted(module.name for module in pkgutil.walk_packages(allmrec.__path__, "allmrec."))
IMPORT_ALL = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"


def test_importing_every_module_writes_nothing(tmp_path: Path) -> None:
    """The process is killed at its end: what it would have deleted at exit stays and is seen."""
    assert len(MODULES) > 100
    folders = {name: tmp_path / name for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    for folder in folders.values():
        folder.mkdir()
    environment = {**os.environ, **{name: str(folder) for name, folder in folders.items()}}
    program = f"{IMPORT_ALL}\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", program, *MODULES],
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert [path for path in tmp_path.rglob("*") if path not in folders.values()] == []


WITHOUT = """
import sys

class Hiding:
    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

hidden, sys.argv = sys.argv[1].split(","), ["allmrec", *sys.argv[2:]]
sys.meta_path = [Hiding(finder, hidden) for finder in sys.meta_path]
from allmrec.cli import main
main()
"""
"""Runs `allmrec` where some packages are not installed."""
CORE = "click", "pydantic", "yaml", "rich"
"""What the command line itself needs."""


def without(hidden: Iterable[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(hidden), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def modules_of(section: str, key: str) -> set[str]:
    """Return the modules that the requirements of setup.cfg bring."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    names = re.findall(r"^([\w-]+)", settings[section][key], re.MULTILINE)
    other_names = {"delta-spark": "delta", "pyyaml": "yaml"}
    return {other_names.get(name, name.replace("-", "_")) for name in names}


NOT_CORE = (modules_of("options", "install_requires") | set(RUNTIME)) - set(CORE)


def test_the_runtime_is_what_its_extra_brings() -> None:
    assert set(RUNTIME) == modules_of("options.extras_require", "runtime")
    assert set(CORE) < modules_of("options", "install_requires")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["nightly", "--help"], ["import", "files", "--help"]]
)
def test_help_and_version_need_the_core_alone(arguments: list[str]) -> None:
    done = without(NOT_CORE, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "allmrec" in done.stdout


ALL_OF_IT = "pyspark, delta-spark, torch, numpy, pandas, pyarrow"


@pytest.mark.parametrize(
    ("hidden", "told", "arguments"),
    [
        (NOT_CORE, ALL_OF_IT, ["doctor"]),
        (RUNTIME, ALL_OF_IT, ["nightly", "--run-date", "2026-06-01"]),
        (RUNTIME, ALL_OF_IT, ["import", "movielens", "--folder", "ml-100k"]),
        (["pyspark"], "pyspark", ["doctor"]),
        (["pyspark"], "pyspark", ["show", "somebody"]),
        (["torch"], "torch", ["train"]),
    ],
)
def test_a_command_without_its_runtime_says_in_one_line_what_is_missing(
    hidden: Iterable[str], told: str, arguments: list[str]
) -> None:
    done = without(hidden, *arguments)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {told}: not installed for this Python")
    assert "`pip install 'allmrec[runtime]'`" in line


def test_a_dependency_of_the_wheel_itself_is_named() -> None:
    done = without(["transformers"], "doctor")
    assert done.returncode == 2
    assert done.stderr.startswith("error: transformers: not installed for this Python; `pip install allmrec`")


def test_a_step_leaves_transformers_to_whoever_loads_a_model() -> None:
    """Every process of a night imports the steps; most of them load no LLM and no text encoder."""
    program = "import sys, allmrec.steps.nightly, allmrec.steps.evaluate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"transformers", "sentence_transformers"}

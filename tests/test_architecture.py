"""The layers hold, and the source keeps its promises.

No pickle, no eval, no except that swallows everything, no import that runs back up, thin jobs.
"""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    [*(ROOT / "allmrec").rglob("*.py"), *(ROOT / "jobs").glob("*.py"), *(ROOT / "deploy").rglob("*.py")]
)
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
MAY_CATCH_ALL = {"allmrec/runtime/listeners.py"}
"""A listener is other people's code, which may raise anything; the night goes on and reports it."""
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|manager|data2)(_|$)")
JOB_IMPORTS = (
    "allmrec.cli",
    "allmrec.config",
    "allmrec.errors",
    "allmrec.steps",
    "allmrec.spark.session",
    "click",
    "__future__",
    "sys",
)


def _contracts() -> dict[str, dict[str, str]]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return {
        name: dict(settings[name])
        for name in settings.sections()
        if name.startswith("importlinter:contract:")
    }


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [str(command), "--no-cache", "--no-logo"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_layers_hold() -> None:
    output = _lint_imports(ROOT)
    assert output.returncode == 0, output.stdout + output.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("training/cf.py", "from petastorm import make_batch_reader"),
        ("training/pipeline.py", "from allmrec.tables import delta"),
        ("models/cf/sasrec.py", "import pyspark"),
        ("scoring/scorer.py", "from allmrec.tables import schemas"),
        ("data/splits.py", "import torch"),
        ("data/items.py", "import delta"),
        ("llm/prompt.py", "import torch"),
        ("llm/multi_item.py", "from allmrec.models.cf import CFModel"),
        ("llm/generate.py", "from allmrec.bundle import Bundle"),
        ("ranking/served.py", "import transformers"),
        ("ranking/blend.py", "from allmrec.scoring.retrieval import Retriever"),
        (
            "bundle/store.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from allmrec.scoring import scorer",
        ),
        ("runtime/context.py", "from allmrec.steps import nightly"),
        ("steps/nightly.py", "import click"),
    ],
)
def test_a_forbidden_import_is_noticed(tmp_path: Path, file: str, line: str) -> None:
    shutil.copytree(ROOT / "allmrec", tmp_path / "allmrec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    path = tmp_path / "allmrec" / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    output = _lint_imports(tmp_path)
    assert output.returncode == 1, output.stdout + output.stderr
    assert "BROKEN" in output.stdout


def test_every_part_of_the_package_has_its_layer() -> None:
    layers = _contracts()["importlinter:contract:layers"]["layers"]
    told = set(re.findall(r"allmrec\.(\w+)", layers))
    parts = {
        path.stem
        for path in (ROOT / "allmrec").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert parts - {"__init__"} == told


def test_every_contract_names_modules_that_exist() -> None:
    contracts = _contracts()
    assert len(contracts) >= 11
    named = {
        name for contract in contracts.values() for name in re.findall(r"\ballmrec\.[\w.]+", str(contract))
    }
    missing = [name for name in sorted(named) if not _exists(name.rstrip("."))]
    assert missing == []


def test_training_needs_no_spark() -> None:
    spark = ("pyspark", "delta", "py4j")
    program = f"import sys, allmrec.training.pipeline; sys.exit(any(name in sys.modules for name in {spark}))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_nothing_refers_to_a_document_outside_the_repository() -> None:
    outside = re.compile(
        r"\b(design|method) §|\(findings\)|§ ?\d+ of the design|design\.md|method\.md|findings\.md"
    )
    paths = [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "conf").iterdir(), *(ROOT / "tests").rglob("*.py")]
    paths = [path for path in paths if path != Path(__file__)]
    assert [str(path) for path in paths if outside.search(path.read_text(encoding="utf-8"))] == []


def _exists(module: str) -> bool:
    path = ROOT / Path(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _parsed(paths: list[Path]) -> Iterator[tuple[str, ast.AST]]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            yield str(path.relative_to(ROOT)), node


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    return []


def test_no_source_pickles_evaluates_or_catches_everything() -> None:
    found = []
    for path, node in _parsed(SOURCES):
        where = f"{path}:{getattr(node, 'lineno', '?')}"
        found += [
            f"{where} imports {name}" for name in _imported(node) if name.split(".")[0] in FORBIDDEN_IMPORTS
        ]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(f"{where} calls {node.func.id}")
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            if (node.func.value.id, node.func.attr) in {("torch", "load"), ("torch", "save"), ("np", "load")}:
                found.append(f"{where} calls {node.func.value.id}.{node.func.attr}")
        raised_again = (
            isinstance(node, ast.ExceptHandler)
            and isinstance(node.body[-1], ast.Raise)
            and node.body[-1].exc is None
        )
        if isinstance(node, ast.ExceptHandler) and not raised_again and path not in MAY_CATCH_ALL:
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(
                kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})
                for kind in caught
            ):
                found.append(f"{where} catches everything")
        if (
            isinstance(node, ast.keyword)
            and node.arg == "trust_remote_code"
            and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        ):
            found.append(f"{where} trusts remote code")
    assert found == []


def test_jobs_hold_no_logic() -> None:
    jobs = sorted((ROOT / "jobs").glob("*.py"))
    assert len(jobs) >= 8
    for path in jobs:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path.name
    names = [(path, name) for path, node in _parsed(jobs) for name in _imported(node)]
    assert [pair for pair in names if not pair[1].startswith(JOB_IMPORTS)] == []


def test_files_are_named_after_what_they_hold() -> None:
    assert [str(path) for path in SOURCES if FORBIDDEN_NAMES.search(path.stem)] == []

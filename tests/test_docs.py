"""The README is true: its tables are generated from the code, its commands run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from allmrec.config import reference
from allmrec.demo.generator import write_shop
from allmrec.tables.schemas import TABLES
from tests.conftest import SHORT_RUNS
from tests.steps.conftest import SMALL
from tests.tiny_models import make_tiny_llm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)


def section(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.S)
    assert found, f"README.md has no section {name}"
    return found.group(1).strip()


def test_the_configuration_reference_is_generated_from_the_code():
    assert section("configuration") == reference().strip(), "run: python -m tests.write_readme"


def test_the_tables_are_the_schemas():
    text = section("tables")
    for name, spec in TABLES.items():
        row = next((line for line in text.splitlines() if line.startswith(f"| `{name}`")), None)
        assert row, f"README.md does not describe {name}"
        for column in spec.schema.fieldNames():
            assert re.search(rf"\b{column}\b", row), f"README.md does not name {name}.{column}"


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)$", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """A folder such as a reader of the README has: the project's jobs and conf, files of a small shop, a small configuration."""
    folder = tmp_path_factory.mktemp("readme")
    os.symlink(ROOT / "jobs", folder / "jobs")
    (folder / "conf").mkdir()
    (folder / "conf" / "spark-defaults.conf").write_text((ROOT / "conf" / "spark-defaults.conf").read_text())
    small: dict = {}
    for line in [*SMALL, f"llm.model={make_tiny_llm(folder / 'llm')}", f"llm.cache={folder / 'cache'}"]:
        key, value = line.split("=", 1)
        part, name = key.split(".")
        small.setdefault(part, {})[name] = yaml.safe_load(value)
    (folder / "conf" / "demo.yaml").write_text(yaml.safe_dump(small))
    write_shop(folder / "my_shop", 120, 100, seed=3, last_day=date(2026, 5, 31))
    for name, text in ORIGINALS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="latin-1")
    subprocess.run(["gzip", "reviews.json", "meta.json"], cwd=folder, check=True)
    return folder


GENRES = "|".join("0" for _ in range(18))
ORIGINALS = {
    "reviews.json": '{"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1529193600}\n',
    "meta.json": '{"asin": "B1", "title": "A <b>plain</b> pan", "category": ["Kitchen", "Pans"], "description": ["It fries."]}\n',
    "ml-100k/u.data": "1\t1\t5\t874965478\n",
    "ml-100k/u.item": f"1|Toy Story (1995)|01-Jan-1995||http://example.org|0|{GENRES}\n",
}


def test_the_readme_has_command_blocks():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_command_block_runs_as_written(number, stranger):
    """In the README's order: later blocks build on what earlier ones left."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "JAVA_TOOL_OPTIONS": SHORT_RUNS,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", BLOCKS[number]],
        cwd=stranger,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{BLOCKS[number]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

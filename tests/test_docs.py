"""The documents are true: commands are run or checked, links resolve, generated parts are fresh."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake

from allmrec.config.former import FIXED
from allmrec.config.reference import fields
from allmrec.config.renamed import RENAMED
from allmrec.demo.generator import write_shop
from allmrec.tables.schemas import TABLES
from tests.command_lines import commands, mistakes
from tests.conftest import QUICK_SQL, SHORT_RUNS
from tests.documents import LANGUAGES, ROOT, Document, documents

DOCUMENTS = documents()
BLOCKS = {
    f"{document.name}:{number}": block
    for document in DOCUMENTS
    for number, block in enumerate(document.blocks("sh"))
}
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_readme_leads_to_every_document() -> None:
    links = {link.partition("#")[0] for link in Document(ROOT / "README.md").links()}
    assert {document.name for document in DOCUMENTS} - links == {"README.md"}


def test_generated_parts_are_fresh() -> None:
    from tests.write_docs import fresh

    stale = [path.name for path, text in fresh() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: make docs"


def test_every_table_and_column_is_described() -> None:
    text = (ROOT / "allmrec" / "tables" / "README.md").read_text(encoding="utf-8")
    for name, spec in TABLES.items():
        assert f"`{name}`" in text
        for column in spec.schema.fieldNames():
            assert re.search(rf"\b{column}\b", text), f"{name}.{column}"


@every_document
def test_links_and_anchors_resolve(document: Document) -> None:
    for link in document.links():
        if "://" in link:
            assert re.fullmatch(r"https://[\w.-]+(/[\w./%#?=&+-]*)?", link), link
            continue
        target, _, anchor = link.partition("#")
        path = (document.path.parent / target).resolve() if target else document.path
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        if anchor:
            assert anchor in Document(path).anchors(), link


@every_document
def test_blocks_are_run_or_checked(document: Document) -> None:
    assert document.languages() <= LANGUAGES
    for block in document.blocks("bash"):
        for words in commands(block):
            assert mistakes(words) == [], words
    for block in document.blocks("text"):
        assert not re.search(r"^\s*(\$ |allmrec |make |python |pip |spark-submit |docker |git )", block, re.M)


@every_document
def test_commands_in_the_prose_exist(document: Document) -> None:
    for code in document.code():
        if re.match(r"(make|python -m|spark-submit .*jobs/|pip install) ?", code):
            assert mistakes(code.split()) == [], code
        if code.startswith("allmrec "):
            assert is_a_command(code.split()[1:]), code


def is_a_command(words: list[str]) -> bool:
    """Whether `allmrec` has the command that these words begin with, whatever options follow."""
    return mistakes(["allmrec", *itertools.takewhile(str.isalpha, words), "--help"]) == []


@every_document
def test_paths_in_the_prose_exist(document: Document) -> None:
    """Paths stand in the repository, beside the document, or inside the package."""
    for code in document.code():
        if re.fullmatch(r"(\.\./)*[\w.-]+(/[\w.-]+)*(/|\.(py|yaml|md|sh|txt|cfg|toml|conf|cff|yml))", code):
            roots = (ROOT, document.path.parent, ROOT / "allmrec")
            assert any((root / code).exists() for root in roots) or made_by_a_run(code), code


def made_by_a_run(path: str) -> bool:
    """Whether a path is one of what a run leaves or a reader brings."""
    return path.split("/")[0] in {"my_shop", "my_shop.yaml", "shop_tables", ".venv", "_bundles"}


@every_document
def test_settings_in_the_prose_exist(document: Document) -> None:
    sections = {path.split(".")[0] for path, _ in fields()} - {"seed"}
    paths = {path for path, _ in fields()} | {path.rpartition(".")[0] for path, _ in fields()}
    if document.name == "CHANGELOG.md":
        paths |= {*RENAMED, *FIXED}
    for code in document.code():
        match = re.fullmatch(r"(\w+)\.(\w+(\.\w+)?)(: \S+)?", code)
        if match and match[1] in sections and not code.endswith((".py", ".sh", ".yaml", ".md")):
            assert f"{match[1]}.{match[2]}" in paths, code


def test_every_room_of_the_package_is_in_its_document() -> None:
    named = set(Document(ROOT / "allmrec" / "README.md").code())
    for room in (ROOT / "allmrec").iterdir():
        if room.name.startswith(("_", ".")) or room.suffix not in ("", ".py"):
            continue
        assert (f"{room.name}/" if room.is_dir() else room.name) in named


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: the project's jobs and conf, files of a small shop, a small configuration."""
    from tests.steps.conftest import SMALL
    from tests.tiny_models import make_tiny_llm

    folder = tmp_path_factory.mktemp("reader")
    os.symlink(ROOT / "jobs", folder / "jobs")
    (folder / "conf").mkdir()
    defaults = (ROOT / "conf" / "spark-defaults.conf").read_text()
    quick = "".join(f"{name} {value}\n" for name, value in QUICK_SUBMITTED.items())
    (folder / "conf" / "spark-defaults.conf").write_text(defaults + quick)
    small: dict[str, dict[str, object]] = {"spark": {"settings": QUICK_SQL}}
    for line in [*SMALL, f"llm.model={make_tiny_llm(folder / 'llm')}", f"cache.folder={folder / 'cache'}"]:
        key, value = line.split("=", 1)
        section, name = key.split(".")
        small.setdefault(section, {})[name] = yaml.safe_load(value)
    (folder / "conf" / "demo.yaml").write_text(yaml.safe_dump(small))
    write_shop(folder / "my_shop", 120, 100, seed=3, last_day=date(2026, 5, 31))
    write_tables(folder / "my_shop")
    [configuration] = DOCUMENTS[0].blocks("yaml")
    (folder / "my_shop.yaml").write_text(configuration)
    for name, text in ORIGINALS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="latin-1")
    archives = ["reviews.json", "meta.json", "steam_reviews.json", "steam_games.json"]
    subprocess.run(["gzip", *archives], cwd=folder, check=True)
    return folder


def write_tables(shop: Path) -> None:
    """Write the shop's files as Delta tables that are not ours; every order was cancelled once, too."""
    log = pd.read_csv(shop / "interactions.csv", dtype=str)
    numbers = log["user_id"].str.extract(r"^user-(\d+)$")[0]
    times = pd.to_datetime(log["event_time"], format="ISO8601", utc=True, errors="coerce")
    orders = log.assign(customer_id=numbers, ordered_at=times.dt.tz_localize(None), status="paid").dropna(
        subset=["customer_id", "item_id", "ordered_at"]
    )
    orders = orders[["customer_id", "item_id", "ordered_at", "status"]].rename(columns={"item_id": "sku"})
    orders["customer_id"] = orders["customer_id"].astype("int64")
    orders["ordered_at"] = orders["ordered_at"].astype("datetime64[us]")
    orders = pd.concat([orders, orders.assign(status="cancelled")], ignore_index=True)
    write_deltalake(shop / "orders", pa.Table.from_pandas(orders, preserve_index=False))
    items = pd.read_json(shop / "items.jsonl", lines=True, dtype=False)
    products = items.rename(columns={"item_id": "sku", "title": "name"})[["sku", "name", "description"]]
    write_deltalake(shop / "products", pa.Table.from_pandas(products, preserve_index=False))


QUICK_SUBMITTED = {**QUICK_SQL, "spark.sql.shuffle.partitions": "2"}
GENRES = "|".join("0" for _ in range(18))
ORIGINALS = {
    "reviews.json": '{"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1529193600}\n',
    "meta.json": '{"asin": "B1", "title": "A <b>plain</b> pan", "category": ["Kitchen", "Pans"], '
    '"description": ["It fries."]}\n',
    "steam_reviews.json": "{u'username': u'Al', u'product_id': u'30', u'date': u'2017-12-17'}\n",
    "steam_games.json": "{u'id': u'30', u'app_name': u'A game', u'genres': [u'Action']}\n",
    "ml-100k/u.data": "1\t1\t5\t874965478\n",
    "ml-100k/u.item": f"1|Toy Story (1995)|01-Jan-1995||http://example.org|0|{GENRES}\n",
}


def test_there_are_blocks_to_run() -> None:
    assert 5 <= len(BLOCKS) <= 12


@pytest.fixture(scope="module")
def done() -> set[str]:
    """The blocks that were run."""
    return set()


@pytest.mark.jvm
@pytest.mark.parametrize(
    "name",
    # The README's are run by every test run; the others take as long again.
    [name if name.startswith("README") else pytest.param(name, marks=pytest.mark.long) for name in BLOCKS],
)
def test_a_block_runs_as_written(name: str, stranger: Path, done: set[str]) -> None:
    """In the documents' order: later blocks build on what earlier ones left."""
    for earlier in list(BLOCKS)[: list(BLOCKS).index(name) + 1]:
        if earlier not in done:
            run_block(BLOCKS[earlier], stranger)
            done.add(earlier)


def run_block(block: str, stranger: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "JAVA_TOOL_OPTIONS": SHORT_RUNS,
    }
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=stranger,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert run.returncode == 0, f"{block}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"

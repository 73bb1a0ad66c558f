"""Importing the package leaves nothing behind, and its command line needs none of the large packages."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import allmrec

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

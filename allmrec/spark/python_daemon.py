"""Spark's Python daemon: workers are forked off with everything imported.

`spark.python.daemon.module` names this module. Spark's own daemon forks workers that import torch and pandas
each by themselves, which takes longer than the work of most tasks. Two more things cost every task up to
Python 3.11, and are done here once:

- Archives of pyspark on Python's path are forgotten, because pyspark is installed beside them. A task reads
  the directories of all of them again (`importlib.invalidate_caches`).
- Imported objects are frozen for the collector of garbage, which looks at all of them after every task.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

MODULE = "allmrec.spark.python_daemon"
PRELOADED = "ALLMREC_PRELOADED"
"""Environment variable: the module, with all that it imports, that workers have from the start."""


def is_sparks_archive(path: str) -> bool:
    """Return whether an entry of Python's path is a JAR or an archive of a pyspark folder."""
    return path.endswith(".jar") or (path.endswith(".zip") and os.path.dirname(path).endswith("python/lib"))


def prepare(preloaded: str) -> None:
    """Import a module, clean Python's path, and freeze all objects for the collector."""
    sys.path[:] = [path for path in sys.path if not is_sparks_archive(path)]
    for known in [path for path in sys.path_importer_cache if is_sparks_archive(path)]:
        del sys.path_importer_cache[known]
    if preloaded:
        importlib.import_module(preloaded)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    from pyspark.daemon import manager

    prepare(os.environ.get(PRELOADED, ""))
    manager()

"""Spark's Python daemon for tests, which start hundreds of workers: what each would do is done here, once.

The setting `spark.python.daemon.module` names it. Workers are forked off with everything imported. And the
archives that Spark puts on Python's path are forgotten, as pyspark is installed beside: up to Python 3.11
every task reads the directories of all of them again (`importlib.invalidate_caches`), which takes a tiny task
longer than its work. So does the collection of garbage after every task, which looks at all that was
imported: that is left out of it.
"""

from __future__ import annotations

import gc
import sys


def is_archive(path: str) -> bool:
    """Return whether an entry of Python's path is a ZIP or JAR file."""
    return path.endswith((".zip", ".jar"))


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if not is_archive(path)]
    for known in [path for path in sys.path_importer_cache if is_archive(path)]:
        del sys.path_importer_cache[known]
    import torch
    from pyspark.daemon import manager

    import allmrec.runtime.workers  # noqa: F401, with all that scoring imports

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    manager()

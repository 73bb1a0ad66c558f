"""What lies in a table's folder: commits in its transaction log, and the data files that the log names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from pyspark.sql import SparkSession

from allmrec.errors import TableError
from allmrec.tables import filesystem

_COMMIT = re.compile(r"(\d{20})\.json")


def newest_commit(spark: SparkSession, name: str, path: str) -> int | None:
    """Return the newest version of the table `name` at `path`, by its log; None where there is no table.

    Raises TableError where the folder holds files but no commit.
    """
    log_names = filesystem.list_names(spark, f"{path}/_delta_log")
    commits = [int(match.group(1)) for match in map(_COMMIT.fullmatch, log_names) if match]
    if commits:
        return max(commits)
    if filesystem.list_names(spark, path):
        raise TableError(
            f"{name}: half-written: {path} holds files but no Delta commit, "
            "expected a Delta table; move them away"
        )
    return None


def require_files(spark: SparkSession, name: str, path: str, uris: Iterable[str]) -> None:
    """Raise TableError where data files of the table `name` at `path` are gone.

    `uris` are the files that its log names. A job that reads the table would meet that only in its middle.
    """
    by_folder: dict[str, set[str]] = defaultdict(set)
    for uri in uris:
        folder, _, file = uri.rpartition("/")
        by_folder[folder].add(file)
    for folder, expected in by_folder.items():
        lost = expected - set(filesystem.list_names(spark, folder))
        if lost:
            raise TableError(
                f"{name}: half-written: {len(lost)} data files that its log names are missing below {path} "
                f"(first: {min(lost)}); restore them, or restore the table from its source"
            )

"""Reads tables as a stranger would: with the `deltalake` library, without Spark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from deltalake import DeltaTable


def rows(root: Path, table: str, **where: str) -> pd.DataFrame:
    """Return the current rows of a table, partition columns as texts.

    `where` keeps rows by equality with a partition column.
    """
    found = DeltaTable(str(root / table))
    frames = []
    for uri in found.file_uris():
        # The library writes the root as a URL, with %20 for a blank.
        path = root / table / uri.rsplit(f"/{table}/", 1)[1]
        parts = dict(part.split("=", 1) for part in path.parts if "=" in part)
        if all(parts.get(name) == value for name, value in where.items()):
            frames.append(pq.ParquetFile(path).read().to_pandas().assign(**parts))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def version(root: Path, table: str) -> int:
    """Return the newest version of a table."""
    return DeltaTable(str(root / table)).version()


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with its arrays as JSON: exact, and a missing number equals a missing number."""
    return frame.map(
        lambda value: json.dumps(value.tolist(), default=str) if isinstance(value, np.ndarray) else value
    )

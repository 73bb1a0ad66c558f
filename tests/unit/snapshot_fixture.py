"""Writes tiny training snapshots in the format that Spark writes, with pyarrow: for tests without a JVM."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from allmrec import seeds

COLUMNS = {
    "user_id": pa.string(),
    "item_idx": pa.list_(pa.int32()),
    "length": pa.int32(),
    "held_back": pa.int32(),
    "role": pa.string(),
    "seen_before": pa.list_(pa.int32()),
}


def padded(items: list[int], max_history: int) -> list[int]:
    """Left-pad the newest items with 0."""
    newest = items[-max_history:]
    return [0] * (max_history - len(newest)) + newest


def write_snapshot(
    folder: Path,
    sequences: dict[str, list[int]],
    titles: list[str],
    held_back: dict[str, tuple[int, str]] | None = None,
    max_history: int = 8,
    row_group_rows: int = 16,
    num_files: int = 2,
    unavailable: Collection[int] = (),
) -> Path:
    """Write a snapshot and return its folder.

    `sequences` maps user_id to train items, `held_back` user_id to (item, role); `titles` are those of the
    items 1..I, of which some may be unavailable.
    """
    held_back = held_back or {}
    rows = [
        (
            user,
            padded(items, max_history),
            min(len(items), max_history),
            *held_back.get(user, (0, "")),
            sorted(set(items)),
        )
        for user, items in sorted(sequences.items())
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for number, rows_of_file in enumerate(np.array_split(np.arange(len(frame)), num_files)):
        path = folder / "sequences" / f"part-{number:05d}.parquet"
        _write(frame.iloc[rows_of_file].drop(columns="seen_before"), path, row_group_rows)
    _write(frame[frame["held_back"] > 0], folder / "held_back" / "part-00000.parquet", row_group_rows)
    interactions = np.array([item for items in sequences.values() for item in items], dtype=np.int64)
    counts = np.bincount(interactions, minlength=len(titles) + 1)[1:]
    items = pa.table(
        {
            "item_idx": pa.array(range(1, len(titles) + 1), pa.int32()),
            "item_id": [f"i{number}" for number in range(1, len(titles) + 1)],
            "title": titles,
            "description": [""] * len(titles),
            "categories": pa.array([[] for _ in titles], pa.list_(pa.string())),
            "num_interactions": pa.array(counts, pa.int64()),
            "available": [item not in unavailable for item in range(1, len(titles) + 1)],
        }
    )
    (folder / "items").mkdir(parents=True)
    pq.write_table(items, folder / "items" / "part-00000.parquet")
    manifest = {
        "num_users": len(frame),
        "num_items": len(titles),
        "num_sequences": len(frame),
        "max_history": max_history,
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, "purpose": "evaluation"}), encoding="utf-8")
    return folder


def chain_snapshot(
    folder: Path, num_users: int = 80, num_items: int = 12, roles: tuple[str, ...] = ("stage2", "early_stop")
) -> Path:
    """Write a snapshot in which item k is always followed by item k + 1, and the last by the first.

    A model that learns anything must learn that.
    """
    random = seeds.generator(7, "chain")
    sequences, held_back = {}, {}
    for number in range(num_users):
        start, length = int(random.integers(num_items)), int(random.integers(2, 7))
        items = [(start + step) % num_items + 1 for step in range(length + 1)]
        user = f"u{number:04d}"
        sequences[user] = items[:-1]
        if roles:
            held_back[user] = (items[-1], roles[number % len(roles)])
    titles = [
        f"thing number {number} of the {['red', 'blue', 'green'][number % 3]} kind"
        for number in range(num_items)
    ]
    return write_snapshot(folder, sequences, titles, held_back)


def group_snapshot(folder: Path, num_users: int, num_items: int = 40, num_groups: int = 4) -> Path:
    """Write a snapshot of users who keep to one of `num_groups` groups of items.

    An item's group is its colour. Two of three users are of role stage2, the others of role early_stop.
    """
    random = np.random.default_rng(0)
    sequences, held_back = {}, {}
    for number in range(num_users):
        items = random.permutation(num_items // num_groups)[: random.integers(2, 7)] * num_groups
        *history, last = (items + number % num_groups + 1).tolist()
        user = f"u{number:03}"
        sequences[user] = history
        held_back[user] = (last, ("stage2", "stage2", "early_stop")[number // 4 % 3])
    colours = ("red", "blue", "green", "black")
    titles = [f"{colours[number % num_groups]} tent {number}" for number in range(num_items)]
    return write_snapshot(folder, sequences, titles, held_back)


def _write(frame: pd.DataFrame, path: Path, row_group_rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, COLUMNS[name]) for name in frame.columns])
    pq.write_table(
        pa.Table.from_pandas(frame, schema=schema, preserve_index=False), path, row_group_size=row_group_rows
    )

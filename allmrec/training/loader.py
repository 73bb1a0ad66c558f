"""Reading the training snapshot that Spark wrote: the only module that imports petastorm.

The docstring of `allmrec/data/snapshot.py` has the snapshot's format. Epochs over its sequences go through
petastorm: one reader per epoch with its dummy pool, over the sorted list of files. (petastorm's thread pool
can yield no rows without an error, and its own shuffling over several epochs cannot be reproduced.) The
shuffle is ours and seeded, and rows are counted against the manifest. The small tables are read by pyarrow.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from allmrec import seeds
from allmrec.errors import InputError, SetupError

Rows = dict[str, np.ndarray]
"""Rows of a table: one array per column, [N] or, for item_idx, [N, L] int32."""
SHUFFLE_BUFFER_ROWS = 200_000
"""Rows that are held and shuffled together."""
HELD_BACK_COLUMNS = ["user_id", "item_idx", "length", "held_back", "role", "seen_before"]
MANIFEST_KEYS = ("num_items", "num_sequences", "max_history")


class Snapshot:
    """A training snapshot in a local folder. Raises InputError where the folder is not a whole snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = self._read_manifest()

    @property
    def num_items(self) -> int:
        """I, the number of items in the catalogue; item_idx runs from 1 to I."""
        return int(self.manifest["num_items"])

    @property
    def max_history(self) -> int:
        """L, the fixed length of `item_idx`."""
        return int(self.manifest["max_history"])

    def items(self) -> pd.DataFrame:
        """Return all items, sorted by item_idx (1..I).

        Columns: item_idx, item_id, title, description, categories, num_interactions, available. Raises
        InputError where item_idx is not 1..I.
        """
        frame = pa.concat_tables([pq.read_table(path) for path in self._files("items")]).to_pandas()
        self._require(frame, "items", "available")
        frame = frame.sort_values("item_idx", ignore_index=True)
        if not np.array_equal(frame["item_idx"].to_numpy(), np.arange(1, self.num_items + 1)):
            raise InputError(
                f"{self.folder}/items: item_idx is not 1..{self.num_items} as the manifest says; "
                "write the snapshot again"
            )
        return frame

    def known_items(self) -> np.ndarray:
        """Return which items have at least one interaction in training: [I+1] bool, false at 0 (padding)."""
        return np.concatenate([[False], self.items()["num_interactions"].to_numpy() > 0])

    def available_items(self) -> np.ndarray:
        """Return which items a night of the cut-off may recommend: [I+1] bool, false at 0 (padding)."""
        return np.concatenate([[False], self.items()["available"].to_numpy(dtype=bool)])

    def lengths(self) -> np.ndarray:
        """Return the number of real items of every sequence, in file order: [num_sequences] int32."""
        columns = [
            pq.read_table(path, columns=["length"])["length"].to_numpy() for path in self._files("sequences")
        ]
        return np.concatenate(columns).astype(np.int32)

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the users in order, and the pairs of a user and an item.

        They are user_id [U] object, and number of the user and item_idx, [N] int64 each. A user's number is
        the place in the order, from 0. A sequence has the newest items alone.
        """
        tables = [pq.read_table(path, columns=["user_id", "item_idx"]) for path in self._files("sequences")]
        whole = pa.concat_tables(tables).combine_chunks().sort_by("user_id")
        items_UL = whole["item_idx"].combine_chunks().flatten().to_numpy().reshape(-1, self.max_history)
        user_N, column_N = np.nonzero(items_UL)
        return whole["user_id"].to_numpy(), user_N, items_UL[user_N, column_N].astype(np.int64)

    def held_back(self, role: str) -> pd.DataFrame:
        """Return the held-back rows, if any, of one role (stage2, early_stop, blend), sorted by user_id.

        Columns: user_id, item_idx (arrays [L] int32), length, held_back, role, seen_before (arrays of int32).
        """
        tables = [
            pq.read_table(path, filters=[("role", "=", role)])
            for path in self._files("held_back", required=False)
        ]
        if not tables:
            return pd.DataFrame(columns=HELD_BACK_COLUMNS)
        rows = pa.concat_tables(tables).to_pandas()
        self._require(rows, "held_back", "seen_before")
        return rows.sort_values("user_id", ignore_index=True)

    def train_targets(self, positions: Literal["last", "all"]) -> pd.DataFrame:
        """Return train items as rows of `held_back` that gave them up: the last ones, or all but the first.

        As in the authors' code: the CF model has learned from these items, and `seen_before` are those before
        them, so that a later item, a held-back or a tested one may be sampled beside them.
        """
        columns = ["user_id", "item_idx"]
        tables = [pq.read_table(path, columns=columns) for path in self._files("sequences")]
        whole = pa.concat_tables(tables).to_pandas().sort_values("user_id")
        rows = []
        for user, padded in zip(whole["user_id"], whole["item_idx"], strict=True):
            items = padded[padded > 0]
            for end in range(1 if positions == "all" else max(len(items) - 1, 1), len(items)):
                history = np.zeros(self.max_history, dtype=np.int32)
                history[self.max_history - end :] = items[:end]
                rows.append((user, history, end, int(items[end]), "stage2", np.unique(items[:end])))
        return pd.DataFrame(rows, columns=HELD_BACK_COLUMNS)

    def num_batches(self, batch_size: int, min_length: int = 1) -> int:
        """Return how many batches `epoch` yields."""
        rows = int((self.lengths() >= min_length).sum())
        return -(-rows // batch_size)

    def epoch(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        columns: tuple[str, ...] = ("item_idx", "held_back"),
        min_length: int = 1,
    ) -> Iterator[Rows]:
        """Yield the sequences as batches of B rows, in an order that (seed, epoch) alone decides.

        Files are read in a seeded order and rows are shuffled within a buffer of SHUFFLE_BUFFER_ROWS; a
        snapshot no larger than that is shuffled as a whole. The last batch may have fewer rows. Sequences
        shorter than `min_length` are left out. A batch maps each of `columns` to its array: item_idx [B, L]
        int32, the others [B]. Raises InputError where the rows read are not as many as the manifest says.
        """
        random = seeds.generator(seed, "epoch", epoch)
        files = self._files("sequences")
        groups = self._read([files[number] for number in random.permutation(len(files))], columns, min_length)
        rest: Rows | None = None
        for buffer in _buffers(groups):
            order = random.permutation(len(buffer["length"]))
            shuffled = {name: buffer[name][order] for name in columns}
            rows = shuffled if rest is None else _joined([rest, shuffled])
            end = len(rows[columns[0]]) // batch_size * batch_size
            for start in range(0, end, batch_size):
                yield {name: values[start : start + batch_size] for name, values in rows.items()}
            rest = {name: values[end:] for name, values in rows.items()}
        if rest is not None and len(rest[columns[0]]):
            yield rest

    def _read(self, files: list[Path], columns: tuple[str, ...], min_length: int) -> Iterator[Rows]:
        """Yield every row group's rows that are long enough; raises InputError where rows are missing."""
        num_rows = 0
        for group in _row_groups(files, sorted({*columns, "length"})):
            num_rows += len(group["length"])
            is_long_enough = group["length"] >= min_length
            yield {name: values[is_long_enough] for name, values in group.items()}
        expected = int(self.manifest["num_sequences"])
        if num_rows != expected:
            raise InputError(
                f"{self.folder}/sequences: read {num_rows} rows, expected {expected} as the manifest says; "
                "write the snapshot again"
            )

    def _require(self, rows: pd.DataFrame, name: str, column: str) -> None:
        """Raise InputError where a table lacks a column, as snapshots of older versions do."""
        if column not in rows:
            raise InputError(
                f"{self.folder}/{name}: no column {column}, found {', '.join(rows)}: an older version wrote "
                "the snapshot; train again, so that it is written anew"
            )

    def _files(self, name: str, required: bool = True) -> list[Path]:
        files = sorted((self.folder / name).glob("*.parquet"))
        if not files and required:
            raise InputError(
                f"{self.folder}/{name}: no Parquet files, expected those of a training snapshot; "
                "write the snapshot again"
            )
        return files

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: missing, expected a training snapshot; write the snapshot again"
            ) from error
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: not JSON ({error}); write the snapshot again") from error
        missing = [key for key in MANIFEST_KEYS if key not in manifest]
        if missing:
            raise InputError(
                f"{path}: no {', '.join(missing)}, expected the manifest of a training snapshot; "
                "write the snapshot again"
            )
        return manifest


def _row_groups(files: list[Path], columns: list[str]) -> Iterator[Rows]:
    """Yield the row groups of `files`, in that order, through one petastorm reader."""
    make_batch_reader = petastorm_reader()
    with _quiet():
        reader = make_batch_reader(
            [_petastorm_url(path) for path in files],
            schema_fields=[f"^{name}$" for name in columns],
            reader_pool_type="dummy",
            num_epochs=1,
            shuffle_row_groups=False,
        )
    try:
        while True:
            with _quiet():
                group = next(reader, None)
            if group is None:
                return
            yield {name: getattr(group, name) for name in columns}
    finally:
        with _quiet():
            reader.stop()
            reader.join()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence petastorm 0.13 inside the block: it warns of pyarrow's legacy reader at every access."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _buffers(groups: Iterator[Rows]) -> Iterator[Rows]:
    """Yield row groups joined until SHUFFLE_BUFFER_ROWS are together; the last buffer may be smaller."""
    waiting: list[Rows] = []
    for group in groups:
        waiting.append(group)
        if sum(len(rows["length"]) for rows in waiting) >= SHUFFLE_BUFFER_ROWS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(groups: list[Rows]) -> Rows:
    """Return the rows of all `groups`, one group after another."""
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}


def can_be_read_at(path: Path) -> bool:
    """Return whether a snapshot at `path` can be read: petastorm cuts URLs at `#` and `?`."""
    return not set("#?") & set(str(path.resolve()))


def _petastorm_url(path: Path) -> str:
    """Return the URL of a file, in which petastorm takes a blank or a % for what it is.

    Raises InputError for a path with a character at which petastorm cuts URLs.
    """
    if not can_be_read_at(path):
        raise InputError(
            f"{path}: # or ? in the path of a training snapshot, which petastorm cannot read; "
            "set cache.folder to another folder"
        )
    return f"file://{path.resolve()}"


def petastorm_reader() -> Any:
    """Return petastorm's `make_batch_reader`; raises SetupError where it is not installed."""
    try:
        from petastorm import make_batch_reader
    except ImportError as error:
        raise SetupError(
            f"petastorm cannot be imported ({error}), expected it for training; "
            "install it with: pip install 'allmrec[train]'"
        ) from error
    return make_batch_reader

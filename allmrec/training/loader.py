"""Reading the training snapshot that Spark wrote: the only module that imports petastorm.

    <folder>/manifest.json   num_users, num_items, num_sequences, max_history, purpose, …
    <folder>/items/          item_idx, title, description, categories, num_interactions
    <folder>/sequences/      user_id, item_idx (fixed length, left-padded with 0, oldest first), length, held_back (0: none), role
    <folder>/held_back/      the rows with held_back > 0, with `seen` (every other item the user had before the cut-off)

Epochs over `sequences/` go through petastorm (one reader an epoch, its dummy pool, over the sorted list of files: its thread pool can yield
no rows without an error, and its own shuffling over several epochs cannot be reproduced); the shuffle is ours and seeded, and rows are
counted against the manifest. The small tables are read by pyarrow.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from allmrec import seeds
from allmrec.errors import InputError, SetupError

Rows = dict[str, np.ndarray]
SHUFFLE_BUFFER_ROWS = 200_000
MANIFEST_KEYS = ("num_items", "num_sequences", "max_history")


class Snapshot:
    """A training snapshot in a local folder. Raises InputError where the folder is not a whole snapshot."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = self._read_manifest()

    @property
    def num_items(self) -> int:
        """I: items in the catalogue; item_idx runs from 1 to I."""
        return int(self.manifest["num_items"])

    @property
    def max_history(self) -> int:
        """L: the fixed length of `item_idx`."""
        return int(self.manifest["max_history"])

    def items(self) -> pd.DataFrame:
        """All items, sorted by item_idx (1..I): item_idx, title, description, categories, num_interactions."""
        frame = pa.concat_tables([pq.read_table(path) for path in self._files("items")]).to_pandas()
        frame = frame.sort_values("item_idx", ignore_index=True)
        if not np.array_equal(frame["item_idx"].to_numpy(), np.arange(1, self.num_items + 1)):
            raise InputError(
                f"{self.folder}/items: item_idx is not 1..{self.num_items} as the manifest says; write the snapshot again"
            )
        return frame

    def known_items(self) -> np.ndarray:
        """[I+1] bool: items with at least one interaction in training; false at 0 (padding)."""
        return np.concatenate([[False], self.items()["num_interactions"].to_numpy() > 0])

    def lengths(self) -> np.ndarray:
        """[num_sequences] int32: the number of real items of every sequence, in file order."""
        columns = [
            pq.read_table(path, columns=["length"])["length"].to_numpy() for path in self._files("sequences")
        ]
        return np.concatenate(columns).astype(np.int32)

    def held_back(self, role: str) -> pd.DataFrame:
        """Held-back rows of one role (stage2, early_stop, blend), sorted by user_id.

        Columns user_id, item_idx ([L] int arrays), length, held_back, role, seen (int arrays). Empty where there are none.
        """
        tables = [
            pq.read_table(path, filters=[("role", "=", role)])
            for path in self._files("held_back", required=False)
        ]
        if not tables:
            return pd.DataFrame(columns=["user_id", "item_idx", "length", "held_back", "role", "seen"])
        return pa.concat_tables(tables).to_pandas().sort_values("user_id", ignore_index=True)

    def num_batches(self, batch_size: int, min_length: int = 1, drop_last: bool = False) -> int:
        """Batches `epoch` yields."""
        rows = int((self.lengths() >= min_length).sum())
        return rows // batch_size if drop_last else -(-rows // batch_size)

    def epoch(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        columns: tuple[str, ...] = ("item_idx", "held_back"),
        drop_last: bool = False,
        min_length: int = 1,
    ) -> Iterator[Rows]:
        """Yield one epoch of `sequences/` as batches {column: array}, item_idx [B, L] int32, in an order that (seed, epoch) alone decides.

        Files are read in a seeded order and rows shuffled within a buffer of SHUFFLE_BUFFER_ROWS (a snapshot no larger than that is
        shuffled as a whole). Sequences shorter than `min_length` are left out. Raises InputError when the rows read are not as many as the
        manifest says.
        """
        random = seeds.generator(seed, "epoch", epoch)
        files = self._files("sequences")
        groups = self._read([files[place] for place in random.permutation(len(files))], columns, min_length)
        rest: Rows | None = None
        for buffer in _buffers(groups):
            rows = len(buffer["length"])
            order = random.permutation(rows)
            shuffled = {name: buffer[name][order] for name in columns}
            rest = (
                shuffled
                if rest is None
                else {name: np.concatenate([rest[name], shuffled[name]]) for name in columns}
            )
            whole = len(rest[columns[0]]) // batch_size * batch_size
            for start in range(0, whole, batch_size):
                yield {name: values[start : start + batch_size] for name, values in rest.items()}
            rest = {name: values[whole:] for name, values in rest.items()}
        if rest is not None and len(rest[columns[0]]) and not drop_last:
            yield rest

    def _read(self, files: list[Path], columns: tuple[str, ...], min_length: int) -> Iterator[Rows]:
        """Yield every row group as arrays, counting rows."""
        wanted = sorted({*columns, "length"})
        rows = 0
        for found in _row_groups(files, wanted):
            rows += len(found["length"])
            kept = found["length"] >= min_length
            yield {name: values[kept] for name, values in found.items()}
        expected = int(self.manifest["num_sequences"])
        if rows != expected:
            raise InputError(
                f"{self.folder}/sequences: read {rows} rows, expected {expected} as the manifest says; write the snapshot again"
            )

    def _files(self, name: str, required: bool = True) -> list[Path]:
        files = sorted((self.folder / name).glob("*.parquet"))
        if not files and required:
            raise InputError(
                f"{self.folder}/{name}: no Parquet files, expected those of a training snapshot; write the snapshot again"
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
                f"{path}: no {', '.join(missing)}, expected the manifest of a training snapshot; write the snapshot again"
            )
        return manifest


def _row_groups(files: list[Path], columns: list[str]) -> Iterator[Rows]:
    """Yield the row groups of `files`, in that order, through one petastorm reader."""
    make_batch_reader = _petastorm_reader()
    with _quiet():
        reader = make_batch_reader(
            [path.resolve().as_uri() for path in files],
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
    """Silence petastorm 0.13: it warns of pyarrow's legacy reader at every access."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _buffers(groups: Iterator[Rows]) -> Iterator[Rows]:
    """Join row groups until SHUFFLE_BUFFER_ROWS are together."""
    held: list[Rows] = []
    for group in groups:
        held.append(group)
        if sum(len(rows["length"]) for rows in held) >= SHUFFLE_BUFFER_ROWS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(groups: list[Rows]) -> Rows:
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}


def _petastorm_reader() -> Any:
    try:
        from petastorm import make_batch_reader
    except ImportError as error:
        raise SetupError(
            f"petastorm cannot be imported ({error}), expected it for training; install it with: pip install 'allmrec[train]'"
        ) from error
    return make_batch_reader

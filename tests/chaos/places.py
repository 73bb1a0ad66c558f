"""Special places: a full disk, a read-only folder, a log with a gap, what a killed writer leaves."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, time, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.chaos.cases import Case, Skipped
from tests.chaos.processes import running
from tests.chaos.shop import NEXT_NIGHT, Shop, add_events
from tests.chaos.verdict import NIGHTLY, check
from tests.steps.conftest import RUN_DATE

Mend = Callable[[], object]


class Place(NamedTuple):
    """What is wrong in a copy of the shop, and what a night must say about it."""

    title: str
    make: Callable[[Shop, Path], AbstractContextManager[Mend]]
    """Its block has the trouble until it calls what it is given."""
    code: int
    words: str = ""
    """In the one line."""


def special_places(shop: Shop) -> list[Case]:
    """Return one case for each place."""
    places = (
        Place("a full disk below recommendations", partial(full_disk, "recommendations"), 4, "No space left"),
        Place("a full disk below _staging", partial(full_disk, "_staging"), 4, "No space left"),
        Place("a read-only folder", read_only, 2, "read-only"),
        Place("a log with a gap", gap, 3, "interactions"),
        Place("what a killed writer leaves", leftovers, 0),
    )
    return [Case("places", place.title, partial(at_place, shop, place)) for place in places]


def at_place(shop: Shop, place: Place) -> str:
    """Let a process do a night, expect its exit code and line, mend the place, run again, and check."""
    root = shop.copy(NEXT_NIGHT.base)
    with place.make(shop, root) as mend:
        with running(shop, root, NEXT_NIGHT) as one:
            code = one.wait()
            one.require_one_line(code, place.code, place.words)
        mend()
        shop.run(NEXT_NIGHT, root)
        check(shop, root, [NEXT_NIGHT])
    return next((line[:160] for line in one.text.splitlines() if line.startswith("error:")), "ended well")


@contextlib.contextmanager
def full_disk(name: str, shop: Shop, root: Path) -> Iterator[Mend]:
    """The folder `name` lies on a disk of its own that has no byte left."""
    folder, saved = root / name, root.with_name(f"{root.name}-{name}")
    folder.mkdir(exist_ok=True)
    shutil.copytree(folder, saved)
    with mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)):
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        filler = folder / ".filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield filler.unlink


@contextlib.contextmanager
def read_only(shop: Shop, root: Path) -> Iterator[Mend]:
    """Nothing below the root may be written, not by root either."""
    with mounted("--bind", str(root), str(root)):
        _mount("-o", "remount,bind,ro", str(root))
        yield partial(_mount, "-o", "remount,bind,rw", str(root))


@contextlib.contextmanager
def gap(shop: Shop, root: Path) -> Iterator[Mend]:
    """A commit in the middle of the log of `interactions` is missing."""
    later = datetime.combine(RUN_DATE + timedelta(days=1), time(10), timezone.utc)
    add_events(shop, root, {"item_id": "new", "event_time": later})
    commits = sorted((root / "interactions" / "_delta_log").glob("*.json"))
    commit, saved = commits[-2], root.with_name(f"{root.name}-{commits[-2].name}")
    commit.rename(saved)
    yield partial(saved.rename, commit)


@contextlib.contextmanager
def leftovers(shop: Shop, root: Path) -> Iterator[Mend]:
    """Beside what is whole lies what a killed writer began: data files, commits without a name, a piece."""
    for table in ("interactions", "runs", *NIGHTLY):
        files = sorted((root / table).rglob("part-*.parquet"))
        _write_half(files[-1], files[-1].parent / f"part-00000-{uuid.uuid4()}-c000.snappy.parquet")
        log = root / table / "_delta_log"
        newest = max(log.glob("*.json"))
        _write_half(newest, log / f".{int(newest.stem) + 1:020d}.json.{uuid.uuid4()}.tmp")
    tonight = root / "recommendations" / f"run_date={RUN_DATE}"
    tonight.mkdir()
    _write_half(files[-1], tonight / f"part-00000-{uuid.uuid4()}.c000.snappy.parquet")
    yield lambda: None


def _write_half(source: Path, target: Path) -> None:
    data = source.read_bytes()
    target.write_bytes(data[: len(data) // 2])


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount for the time of the block, at the last argument; raises Skipped where that is not allowed."""
    _mount(*arguments)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


def _mount(*arguments: str) -> None:
    """Call mount(8); raises Skipped where it is missing or not allowed."""
    if shutil.which("mount") is None:
        raise Skipped("there is no mount(8) here")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"cannot mount here: {done.stderr.strip()}")

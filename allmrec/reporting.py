"""Output of a running command: lines, timed parts, progress.

At a terminal parts and progress are live at the bottom of the screen and vanish when they end; in a file or a
pipe a progress line is written every ten seconds. Reports never decide results.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is written without a terminal."""


class Report:
    """A receiver of lines and progress.

    `Report()` is silent; `Report(lines.append)` collects the lines. `seconds` has the duration of every
    finished `part` of this report, by name.
    """

    def __init__(
        self,
        write: Callable[[str], None] = lambda line: None,
        screen: Screen | None = None,
        prefix: str = "",
        every_seconds: float = SECONDS_BETWEEN_LINES,
        fields: Mapping[str, str] | None = None,
        as_json: bool = False,
    ) -> None:
        self.write = write
        self.screen = screen
        self.prefix = prefix
        self.every_seconds = every_seconds
        self.fields = dict(fields or {})
        self.as_json = as_json
        self.seconds: dict[str, float] = {}

    def __call__(self, line: str) -> None:
        """Write a line, as text or as a JSON object."""
        if not self.as_json:
            self.write(self.prefix + line)
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self.write(json.dumps({"time": now, **self.fields, "message": line}, ensure_ascii=False))

    def of(self, **fields: str) -> Report:
        """Return a report to the same place with more JSON fields."""
        known = {**self.fields, **fields}
        return Report(self.write, self.screen, self.prefix, self.every_seconds, known, self.as_json)

    def under(self, prefix: str, **fields: str) -> Report:
        """Return a report to the same place with a longer prefix.

        The new prefix is this one's and `prefix`; JSON lines have `fields` instead. Its `seconds` are its
        own.
        """
        report = self.of(**fields)
        report.prefix = self.prefix + prefix
        return report

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Report the start and the duration of the block.

        The duration is stored in `seconds` as `all`.
        """
        self("started")
        with self._timed("all"):
            yield
        self(f"done in {self.seconds['all']:.1f} s")

    @contextmanager
    def part(self, name: str, purpose: str) -> Iterator[None]:
        """Report the purpose and the duration of the block.

        The duration is stored in `seconds`, also if the block fails.
        """
        if self.screen is None:
            self(f"{name}: {purpose}")
            with self._timed(name):
                yield
            self(f"{name}: done in {self.seconds[name]:.1f} s")
            return
        with self.screen.task(f"{self.prefix}{name}: {purpose}"), self._timed(name):
            yield
        self(f"{name}: {purpose}: done in {self.seconds[name]:.1f} s")

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - start, 1)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Progress]:
        """Yield the progress of `total` units for the block to update."""
        progress = Progress(self, label, total, unit)
        try:
            yield progress
        finally:
            progress.close()


class Progress:
    """Units done out of `total`, with the rate and the time left. See `Report.progress`."""

    def __init__(self, report: Report, label: str, total: int, unit: str) -> None:
        self.report = report
        self.label = label
        self.total = total
        self.unit = unit
        self.start = self.last_line = time.monotonic()
        self.first: int | None = None
        self.last_done = 0
        self.task = report.screen.add(report.prefix + label, total) if report.screen else None

    def update(self, done: int, detail: str = "") -> None:
        """Report that `done` units are done, with a `detail`.

        The first call is the origin of the rate: 0 before the first unit, the first step after a resume.
        """
        if self.first is None:
            self.first = max(done - 1, 0)
        if self.report.screen is not None and self.task is not None:
            total, *rate = self.numbers(done)
            left = [words.replace("at most", "≤") for words in rate[1:]]
            self.report.screen.update(self.task, done, detail, ", ".join([total, *left]))
        elif self._is_news(done):
            self.last_line = time.monotonic()
            self.last_done = done
            total, *rate = self.numbers(done)
            self.report(f"{self.label}: " + ", ".join([total, *([detail] if detail else []), *rate]))

    def _is_news(self, done: int) -> bool:
        """Return whether a line is due."""
        waited = time.monotonic() - self.last_line >= self.report.every_seconds
        return waited and self.last_done < done < self.total

    def numbers(self, done: int) -> list[str]:
        """Return done of total, the rate and the time left, in words."""
        words = [f"{done:,} / {self.total:,} {self.unit}"]
        seconds = time.monotonic() - self.start
        fresh = done - (self.first or 0)
        if fresh > 0 and seconds > 0 and done < self.total:
            rate = fresh / seconds
            left = seconds * (self.total - done) / fresh
            words += [speed(rate), f"at most {duration(left)} left"]
        return words

    def close(self) -> None:
        """Take the progress off the screen."""
        if self.report.screen is not None and self.task is not None:
            self.report.screen.remove(self.task)


class Screen:
    """A terminal: scrolling lines, and the current tasks below them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._lock = threading.RLock()

    @contextmanager
    def task(self, label: str) -> Iterator[None]:
        """Show a task without numbers while the block runs."""
        task = self.add(label, None)
        try:
            yield
        finally:
            self.remove(task)

    def add(self, label: str, total: int | None) -> TaskID:
        """Show a task. Without a total it has only a spinner and a clock."""
        from rich.markup import escape

        with self._lock:
            if self._bars is None:
                self._bars = _bars(self.console)
                self._bars.start()
            return self._bars.add_task(escape(label), total=total, label=label, numbers="")

    def update(self, task: TaskID, done: int, detail: str, numbers: str) -> None:
        """Show the progress of a task."""
        from rich.markup import escape

        with self._lock:
            if self._bars is not None:
                label = self._bars.tasks[self._bars.task_ids.index(task)].fields["label"]
                described = f"{label}: {detail}" if detail else label
                self._bars.update(
                    task, completed=done, description=escape(described), numbers=escape(numbers)
                )

    def remove(self, task: TaskID) -> None:
        """Take a task off the screen."""
        with self._lock:
            if self._bars is not None:
                self._bars.remove_task(task)
                if not self._bars.tasks:
                    self._bars.stop()
                    self._bars = None


def _bars(console: Console) -> Bars:
    """Return the bars of a terminal. Only a terminal needs the import, which takes a tenth of a second."""
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    what = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    numbers = Column(no_wrap=True, justify="right")
    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=what),
        TextColumn("{task.fields[numbers]}", table_column=numbers),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        expand=True,
    )


def speed(rate: float) -> str:
    """Return a rate per second, such as `18 per second`; below one the seconds of a unit, `2.5 s each`."""
    if rate < 1:
        return f"{1 / rate:,.1f} s each"
    return f"{rate:,.{0 if rate > 10 else 1}f} per second"


def duration(seconds: float) -> str:
    """Return a duration, such as `42 s` or `3 min 5 s`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""Listeners of runs: every start and end of a step, for MLflow, a webhook or a pager.

A new listener is a class in a file of its own and a line in `LISTENERS`. `reporting.listeners` names the ones
that listen. A step has the same result with and without them: an error of a listener is a reported line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from allmrec.errors import ConfigError
from allmrec.reporting import Report
from allmrec.runtime.runs import RunRow
from allmrec.spark.secret_settings import without_secrets


class RunListener(Protocol):
    """Hears the rows of one step. The step waits for each call."""

    def started(self, row: RunRow) -> None:
        """Hear the row of a step that starts."""

    def ended(self, row: RunRow) -> None:
        """Hear the row of a step that is done or failed; `row.message` is the error of a failed one."""


LISTENERS: dict[str, Callable[[], RunListener]] = {}
"""Listeners by name; each step makes its own objects."""


def check_listeners(names: Sequence[str]) -> None:
    """Raise ConfigError where `reporting.listeners` names a listener that `LISTENERS` lacks."""
    for index, name in enumerate(names):
        if name not in LISTENERS:
            known = (
                f"one of {', '.join(sorted(LISTENERS))}" if LISTENERS else "none, because none is installed"
            )
            raise ConfigError(f"reporting.listeners[{index}]: {name}, expected {known}")


class Listeners:
    """The listeners of one step."""

    def __init__(self, names: Sequence[str], report: Report) -> None:
        self.report = report
        self._listening: dict[str, RunListener] = {}
        for name in names:
            with self._errors_reported(name):
                self._listening[name] = LISTENERS[name]()

    def started(self, row: RunRow) -> None:
        """Tell every listener of the row of a step that starts."""
        for name, listener in self._listening.items():
            with self._errors_reported(name):
                listener.started(row)

    def ended(self, row: RunRow) -> None:
        """Tell every listener of the last row of a step."""
        for name, listener in self._listening.items():
            with self._errors_reported(name):
                listener.ended(row)

    @contextmanager
    def _errors_reported(self, name: str) -> Iterator[None]:
        """Report an error of the block in one line, and raise nothing."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a listener may raise anything
            line = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
            self.report(f"warning: listener {name} failed ({line}); the step goes on without it")

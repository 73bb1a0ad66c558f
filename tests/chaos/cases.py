"""Cases: what is done, what became of it, and how many of each kind there were."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple


class Broken(AssertionError):
    """Something is not as it must be."""


class Skipped(Exception):
    """This machine cannot do the case."""


class Case(NamedTuple):
    """One case; `do` returns a remark, and raises Broken or Skipped, or what was not expected at all."""

    kind: str
    title: str
    do: Callable[[], str]


class Outcome(NamedTuple):
    """What became of a case."""

    case: Case
    word: str
    """ok, FAILED or skipped."""
    remark: str
    seconds: float

    def __str__(self) -> str:
        remark = f": {self.remark}" if self.remark else ""
        return f"{self.word:7} {self.case.kind}: {self.case.title}{remark} ({self.seconds:.0f} s)"


def run_case(case: Case) -> Outcome:
    """Do a case; whatever it raises is its outcome, so that the next case gets its turn."""
    start = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(case.do)
        error = done.exception()
    seconds = time.monotonic() - start
    if error is None:
        return Outcome(case, "ok", done.result(), seconds)
    word = "skipped" if isinstance(error, Skipped) else "FAILED"
    name = "" if isinstance(error, Broken | Skipped) else f"{type(error).__name__}: "
    return Outcome(case, word, name + " ".join(str(error).split())[:2000], seconds)


def summary(outcomes: Iterable[Outcome]) -> list[str]:
    """Return a table: cases, outcomes and seconds of every kind."""
    outcomes = list(outcomes)
    lines = [f"{'':12}{'cases':>7}{'ok':>7}{'FAILED':>7}{'skipped':>9}{'seconds':>9}{'each':>7}"]
    kinds = list(dict.fromkeys(outcome.case.kind for outcome in outcomes))
    for kind in [*kinds, "all"]:
        of_kind = [outcome for outcome in outcomes if kind in (outcome.case.kind, "all")]
        words = Counter(outcome.word for outcome in of_kind)
        seconds = sum(outcome.seconds for outcome in of_kind)
        numbers = f"{len(of_kind):7}{words['ok']:7}{words['FAILED']:7}{words['skipped']:9}"
        lines.append(f"{kind:12}{numbers}{seconds:9.0f}{seconds / max(1, len(of_kind)):7.0f}")
    return lines

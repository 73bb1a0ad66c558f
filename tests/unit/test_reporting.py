"""What a person sees: lines every ten seconds in a pipe, live tasks at a terminal, durations."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from allmrec import reporting
from allmrec.reporting import Report, Screen, speed


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reporting, "time", clock)
    return clock


def test_a_part_says_what_it_is_for_and_how_long_it_took(clock: Clock) -> None:
    lines: list[str] = []
    report = Report(lines.append).under("train: ")
    with report.whole():
        with report.part("cf", "learn who had what"):
            clock.now += 2.5
        clock.now += 1
    assert lines == [
        "train: started",
        "train: cf: learn who had what",
        "train: cf: done in 2.5 s",
        "train: done in 3.5 s",
    ]
    assert report.seconds == {"cf": 2.5, "all": 3.5}


def test_a_part_that_fails_is_not_called_done_but_its_duration_is_kept(clock: Clock) -> None:
    lines: list[str] = []
    report = Report(lines.append)

    def fail() -> None:
        with report.part("cf", "learn"):
            clock.now += 4
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert lines == ["cf: learn"]
    assert report.seconds == {"cf": 4.0}


def test_progress_in_a_pipe_is_a_line_every_ten_seconds_with_the_rate_and_the_time_left(clock: Clock) -> None:
    lines: list[str] = []
    with Report(lines.append).progress("score", 1000, "users") as progress:
        for second in range(1, 26):
            clock.now += 1
            progress.update(20 * second, "loss 0.5")
    assert lines == [
        "score: 200 / 1,000 users, loss 0.5, 18 per second, at most 44 s left",
        "score: 400 / 1,000 users, loss 0.5, 19 per second, at most 31 s left",
    ]


def test_the_rate_after_a_resume_counts_only_what_was_done_since(clock: Clock) -> None:
    lines: list[str] = []
    with Report(lines.append, every_seconds=0).progress("cf", 1000, "steps") as progress:
        for step in (901, 911):
            clock.now += 10
            progress.update(step)
    assert lines[-1] == "cf: 911 / 1,000 steps, 1.8 s each, at most 2 min 42 s left"


@pytest.mark.parametrize("rate", [0.0004, 0.04, 0.4, 0.96, 1.0, 9.96, 40.0])
def test_no_rate_of_work_that_goes_on_is_printed_as_nothing(rate: float) -> None:
    number, words = speed(rate).split(" ", 1)
    assert float(number.replace(",", "")) >= 1
    assert words == ("s each" if rate < 1 else "per second")


def test_the_rate_of_units_that_come_by_the_hundred_counts_from_their_start(clock: Clock) -> None:
    lines: list[str] = []
    with Report(lines.append).progress("priors", 813, "titles") as progress:
        progress.update(0)
        clock.now += 20
        progress.update(681)
    assert lines == ["priors: 681 / 813 titles, 34 per second, at most 4 s left"]


def test_a_silent_report_says_nothing_and_keeps_durations(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report("a line")
    with report.part("cf", "learn"), report.progress("cf", 10, "steps") as progress:
        progress.update(1)
    assert capfd.readouterr() == ("", "")
    assert "cf" in report.seconds


@pytest.mark.parametrize("width", [80, 140])
def test_at_a_terminal_tasks_are_live_fit_their_line_and_vanish(width: int) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, color_system=None)
    report = Report(console.print, Screen(console)).under("train 2026-05-29: ")
    with report.part("cf", "train sasrec on who had what"), report.progress("cf", 300, "steps") as progress:
        progress.update(1)
        progress.update(120, "loss 1.2345 and many more figures that leave no room for what is left")
        time.sleep(0.3)  # the screen is drawn ten times per second
        report("a line in between")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue())
    assert "a line in between" in plain
    assert re.search(r"120 / 300 steps, ≤ \d+ s left", plain)
    assert max(len(line) for line in re.split(r"[\n\r]+", plain)) <= width
    assert plain.rstrip().endswith("s")
    assert "done in" in plain.splitlines()[-1]


def test_durations_are_said_as_people_say_them() -> None:
    said = [reporting.duration(seconds) for seconds in (0.2, 59.4, 61, 3599, 3601, 90_000)]
    assert said == ["0 s", "59 s", "1 min 1 s", "59 min 59 s", "1 h 0 min", "25 h 0 min"]

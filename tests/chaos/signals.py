"""Nights in processes of their own that are hit by signals at random moments; then run again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from tests.chaos.cases import Broken, Case
from tests.chaos.processes import Night, running
from tests.chaos.shop import FIRST_NIGHT, NEXT_NIGHT, Shop, Work
from tests.chaos.verdict import check

BEGUN, SCORING = "started", "score: let the LLM"
"""What a night says when it begins to write, and when it begins to score."""
WHAT = ("driver_and_jvm", "jvm", "driver_and_jvm", "worker", "terminated")
"""What is hit, in turn."""


class Moment(NamedTuple):
    """When a process is hit: so long after it has said so many lines."""

    num_lines: int
    seconds: float


Hit = Callable[[Night, Moment], str]


def signalled_nights(shop: Shop, num: int, rng: random.Random) -> list[Case]:
    """Return `num` cases, and before them one that is not hit, which says how many lines a night says."""
    said: list[int] = []
    cases = [Case("signals", f"{FIRST_NIGHT}, not hit", lambda: not_hit(shop, said))]
    hits: dict[str, Hit] = {
        "driver_and_jvm": kill_driver_and_jvm,
        "jvm": kill_jvm,
        "worker": kill_worker,
        "terminated": terminate,
    }
    for turn in range(num):
        what = WHAT[turn % len(WHAT)]
        work = NEXT_NIGHT if turn % 3 == 2 else FIRST_NIGHT
        share, seconds = rng.uniform(0, 0.95), rng.uniform(0, 1)

        def do(
            hit: Hit = hits[what], work: Work = work, share: float = share, seconds: float = seconds
        ) -> str:
            moment = Moment(int(share * said[0]), seconds)
            return hit_and_run_again(shop, work, lambda one: hit(one, moment))

        cases.append(Case("signals", f"{work}, {what.replace('_', ' ')} at {share:.0%} of a night", do))
    return cases


def not_hit(shop: Shop, said: list[int]) -> str:
    """Let a process do a night, check, and note how many lines it said."""
    root = shop.copy(FIRST_NIGHT.base)
    with running(shop, root, FIRST_NIGHT) as one:
        one.require_one_line(one.wait(), 0)
        said.append(one.num_lines)
    check(shop, root, [FIRST_NIGHT])
    return f"{said[0]} lines"


def hit_and_run_again(shop: Shop, work: Work, hit: Callable[[Night], str]) -> str:
    """Let a process do a work, hit it, do the work again in the warm session, and check."""
    root = shop.copy(work.base)
    with running(shop, root, work) as one:
        one.wait_for(BEGUN)
        remark = hit(one)
        shop.run(work, root)
    check(shop, root, [work])
    return remark


def kill_driver_and_jvm(one: Night, moment: Moment) -> str:
    """SIGKILL for the whole group: a machine that loses its power."""
    _let_work(one, moment)
    one.kill_all()
    return _said_last(one)


def kill_jvm(one: Night, moment: Moment) -> str:
    """SIGKILL for the JVM alone: the driver must end with one line and exit code 4."""
    _let_work(one, moment)
    for jvm in one.descendants("org.apache.spark.deploy.SparkSubmit"):
        jvm.kill()
    one.require_one_line(one.wait(), 4)
    return _said_last(one)


def terminate(one: Night, moment: Moment) -> str:
    """SIGTERM for the driver; its JVM may go on for a moment, and the rerun does not wait for it."""
    _let_work(one, moment)
    one.process.terminate()
    code = one.wait()
    if code != -signal.SIGTERM or "Traceback" in one.text:
        raise Broken(f"{one.said}: exit code {code} after SIGTERM, expected {-signal.SIGTERM}, no traceback")
    return _said_last(one)


def kill_worker(one: Night, moment: Moment) -> str:
    """SIGKILL for a Python worker that scores: Spark repeats no task in local mode, so the night fails."""
    one.wait_for(SCORING)
    until = time.monotonic() + moment.seconds
    while one.process.poll() is None:
        busy = [worker for worker in one.descendants("pyspark.daemon") if _is_busy(worker)]
        if busy and time.monotonic() > until:
            busy[0].kill()
            break
        time.sleep(0.02)
    code = one.wait()
    if code == 0:
        return "the worker was between two tasks; the night ended well"
    one.require_one_line(code, 4)
    return _said_last(one)


def _is_busy(process: psutil.Process) -> bool:
    """Return whether a process computes: it is a worker with a task then, the daemon only waits."""
    try:
        parent = process.parent()
        is_worker = parent is not None and parent.name() != "java"
        return is_worker and process.status() == psutil.STATUS_RUNNING
    except psutil.Error:
        return False


def _let_work(one: Night, moment: Moment) -> None:
    """Let the process work until the moment. Raises Broken where it ends before that."""
    while one.num_lines < moment.num_lines and one.process.poll() is None:
        time.sleep(0.05)
    time.sleep(moment.seconds)
    if one.process.poll() is not None:
        raise Broken(f"{one.said}: over before it was hit, exit code {one.process.poll()}")


def _said_last(one: Night) -> str:
    lines = [line for line in one.text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "it said nothing"

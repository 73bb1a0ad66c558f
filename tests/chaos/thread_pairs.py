"""Two works at the same time as two threads of one warm driver, each with a session of its own."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from allmrec.errors import SupersededError
from allmrec.reporting import Report
from tests.chaos.cases import Broken
from tests.chaos.shop import Shop, Work
from tests.chaos.verdict import check, records


@dataclass
class Ended:
    """What became of one of two works."""

    lines: list[str] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def run_id(self) -> str:
        """The run that spoke last."""
        return str(json.loads(self.lines[-1])["run_id"])


def two_threads(shop: Shop, works: tuple[Work, Work], delay: float) -> str:
    """Do two works in two threads of the warm driver, check, and return who won."""
    root, ended = shop.copy(works[0].base), (Ended(), Ended())
    with ThreadPoolExecutor(2) as threads:

        def run(number: int) -> None:
            time.sleep(number * delay)
            shop.run(works[number], root, Report(ended[number].lines.append, as_json=True))

        for one, future in zip(ended, [threads.submit(run, number) for number in (0, 1)], strict=True):
            one.error = future.exception()
    remark = _of_one_date(root, works[0], ended) if works[0] == works[1] else _of_two(root, ended)
    check(shop, root, dict.fromkeys(works))
    return remark


def _of_two(root: Path, ended: tuple[Ended, Ended]) -> str:
    """Raise Broken unless both works ended well."""
    errors = [f"{type(one.error).__name__}: {one.error}" for one in ended if one.error is not None]
    if errors:
        raise Broken(f"{root}: expected both to end well: {'; '.join(errors)}")
    return ""


def _of_one_date(root: Path, work: Work, ended: tuple[Ended, Ended]) -> str:
    """Return who won; raise Broken where both lost, or the loser does not say so."""
    failed = [one for one in ended if one.error is not None]
    if not failed:
        return both_well(root, work)
    if len(failed) == 2:
        raise Broken(f"{root}: both failed: {'; '.join(repr(one.error) for one in failed)}")
    [winner] = [one for one in ended if one.error is None]
    error = failed[0].error
    if not isinstance(error, SupersededError):
        raise Broken(f"{root}: the loser says {error!r}, expected SupersededError")
    if winner.run_id not in str(error):
        raise Broken(f"{root}: the loser does not name {winner.run_id}: {error}")
    return "the first won" if winner is ended[0] else "the second won"


def both_well(root: Path, work: Work) -> str:
    """Return that both ended well; raise Broken where the older one wrote though the newer one was at work.

    The older one looks for a newer one before each of its tables, the last of which the feeds are: a newer
    one that it does not meet can have nothing left to do, or the publishing only.
    """
    found = records(root, work.first)
    newest = found[found["run_order"] == found["run_order"].max()]
    if found["run_id"].nunique() > 1 and set(newest["step"]) - {"publish"}:
        raise Broken(
            f"{root}: both ended well, and the newer one did {', '.join(sorted(set(newest['step'])))}"
        )
    return "the second came when all was done"

"""Two works at the same time as two processes: no lock is between their commits but the file system's.

On a local disk Delta gives a commit its name by looking whether it is free and renaming then, so that two
processes could each take the same one, and the first commit be lost. What both say is compared with `runs`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

from tests.chaos.cases import Broken
from tests.chaos.processes import Night, running
from tests.chaos.shop import Shop, Work
from tests.chaos.thread_pairs import both_well
from tests.chaos.verdict import check, records

_SAID = re.compile(r"^\S+ (\w+) (\S+): (started|done)\b", re.MULTILINE)
"""A step's first and last line."""


def two_processes(shop: Shop, works: tuple[Work, Work], delay: float) -> str:
    """Do two works in two processes, check, and return who won."""
    root = shop.copy(works[0].base)
    with running(shop, root, works[0]) as first:
        time.sleep(delay)
        with running(shop, root, works[1]) as second:
            nights = first, second
            codes = [one.wait() for one in nights]
    lost = lost_records(root, nights, works)
    if lost:
        raise Broken(f"{root}: said, but not in runs, so that commits were lost: {dict(lost)}")
    remark = ""
    if works[0] == works[1]:
        remark = _who_won(root, works[0], nights, codes)
    else:
        for one, code in zip(nights, codes, strict=True):
            one.require_one_line(code, 0)
    check(shop, root, dict.fromkeys(works))
    return f"two processes; {remark}".rstrip("; ")


def lost_records(
    root: Path, nights: tuple[Night, Night], works: tuple[Work, Work]
) -> Counter[tuple[str, ...]]:
    """Return which beginnings and ends of steps the processes said and `runs` does not have."""
    said = Counter(match for one in nights for match in _SAID.findall(one.text))
    days = {day for work in works for day in work.dates}
    rows = [row for day in days for row in records(root, day).itertuples()]
    return said - Counter((row.step, str(row.run_date), row.status) for row in rows)


def _who_won(root: Path, work: Work, nights: tuple[Night, Night], codes: list[int]) -> str:
    """Return who won; raise Broken unless exactly one did, and the other names it, or came too late."""
    if codes == [0, 0]:
        return both_well(root, work)
    if sorted(codes) != [0, 2]:
        raise Broken(f"{root}: exit codes {codes}, expected 0 and 2: {[one.text[-300:] for one in nights]}")
    found = records(root, work.first)
    winner = found.loc[found["run_order"].idxmax(), "run_id"]
    nights[codes.index(2)].require_one_line(2, 2, f"run {winner} ")
    return "the first won" if codes[0] == 0 else "the second won"

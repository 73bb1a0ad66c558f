"""Nights killed at a write: before it, in the middle of it, or right after it; then run again."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.chaos.cases import Broken, Case
from tests.chaos.faults import HOW, Faults, Killed, places
from tests.chaos.shop import BACKFILL, FIRST_NIGHT, NEXT_NIGHT, Shop, Work, add_events
from tests.chaos.verdict import check, records
from tests.steps.reading import rows

WORKS = (FIRST_NIGHT, NEXT_NIGHT, FIRST_NIGHT, NEXT_NIGHT, FIRST_NIGHT, BACKFILL)
"""What is killed, in turn."""


@dataclass(frozen=True)
class Kill:
    """Where a work is killed, and what happens before it is run again."""

    work: Work
    faults: tuple[Faults, ...]
    """One for each time it is killed, one after the other."""
    log_grows: bool
    """Events come into the log before the rerun, which must not see them."""


def injected_kills(shop: Shop, num: int, rng: random.Random, works: Sequence[Work] = WORKS) -> list[Case]:
    """Return `num` cases; every kind of write is hit as often as any other."""
    turns = [works[turn % len(works)] for turn in range(num)]
    drawn = {
        work: places(shop.undisturbed(work).writes, turns.count(work), rng) for work in dict.fromkeys(turns)
    }
    cases = []
    for turn, work in enumerate(turns):
        writes, at = shop.undisturbed(work).writes, drawn[work].pop()
        how = HOW[turn % len(HOW)]
        faults = [Faults(at, how, rng.uniform(0, writes[at].seconds))]
        again = rng.random() < 0.2
        if again:
            faults.append(Faults(rng.randrange(len(writes) // 2), rng.choice(HOW[::2])))
        kill = Kill(work, tuple(faults), rng.random() < 0.3)
        title = f"{work}, {how} write {at + 1} of {len(writes)} ({writes[at].name})"
        title += ", and the rerun too" if again else ""
        cases.append(Case("injected", title, partial(killed, shop, kill)))
    return cases


def killed(shop: Shop, kill: Kill) -> str:
    """Kill a work, run it again, check; return where the kills met it."""
    root, met = shop.copy(kill.work.base), []
    for number, faults in enumerate(kill.faults):
        with faults.injected(), contextlib.suppress(Killed):
            shop.run(kill.work, root)
        met.append(faults.met or "no write")
        if not faults.met and number == 0:
            raise Broken(f"{root}: not killed: {len(faults.writes)} writes, expected more than {faults.at}")
    grown = kill.log_grows and _is_pinned(root, kill.work)
    if grown:
        add_events(shop, root, {"item_id": rows(root, "items")["item_id"].min()})
    shop.run(kill.work, root)
    check(shop, root, [kill.work])
    return f"killed at {' and '.join(met)}" + (", then the log grew" if grown else "")


def _is_pinned(root: Path, work: Work) -> bool:
    """Return whether every date of the work has a run that says which versions it read."""
    return all("sequences" in set(records(root, day)["step"]) for day in work.dates)

"""Which works are done at the same time: nights on one date, on two dates, a backfill beside a night."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial

from tests.chaos.cases import Case
from tests.chaos.process_pairs import two_processes
from tests.chaos.shop import BACKFILL, FIRST_NIGHT, NEXT_NIGHT, TRAINED, Shop, night
from tests.chaos.thread_pairs import two_threads
from tests.steps.conftest import RUN_DATE, TRAINED_BEFORE

ONE_DATE = ((FIRST_NIGHT, FIRST_NIGHT), (NEXT_NIGHT, NEXT_NIGHT))
TWO_DATES = (
    # Neighbours keep no list of each other here: whether they could depends on who is done first.
    (night(TRAINED, RUN_DATE, full=True), night(TRAINED, RUN_DATE + timedelta(days=1), full=True)),
    # The night of `LAST_DAY` lies between them, and is done: it is always the one before the later date, and
    # nothing lies before the earlier one.
    (NEXT_NIGHT, night(NEXT_NIGHT.base, TRAINED_BEFORE)),
)
BESIDE_A_NIGHT = (
    # Again the night of `LAST_DAY` lies between. The second date of a backfill follows its first.
    (NEXT_NIGHT, BACKFILL),
    (BACKFILL, NEXT_NIGHT),
)
PAIRS = {"one_date": ONE_DATE, "two_dates": TWO_DATES, "backfill": BESIDE_A_NIGHT}
"""What is begun first and second, by kind of case."""
MAX_PROCESS_DELAY = 10.0
"""Seconds; two processes need about so long, one more, one less, before they read a table."""


def pairs(shop: Shop, kind: str, num: int, rng: random.Random) -> list[Case]:
    """Return `num` cases of a kind, in half of which both begin at once; a tenth are two processes."""
    num_processes, cases = -(-num // 10), []
    for turn in range(num):
        works = PAIRS[kind][turn % 2]
        in_processes = turn >= num - num_processes
        latest = MAX_PROCESS_DELAY if in_processes else shop.undisturbed(works[0]).seconds
        is_at_once = turn % 2 == 0 if in_processes else turn // 2 % 2 == 0
        delay = 0.0 if is_at_once else rng.uniform(0, latest)
        title = f"{works[0]} and, {delay:.1f} s later, {works[1]}"
        cases.append(
            Case(kind, title, partial(two_processes if in_processes else two_threads, shop, works, delay))
        )
    return cases

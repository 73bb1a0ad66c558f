"""The e-mails of a night as their receivers see them: variety, repetition, cost.

    python -m tests.bench.bench_emails TABLES RUN_DATE

TABLES is a `tables.root` with the night, read with `deltalake`. Printed are the shares of e-mails over a cap
of two per leaf category, with two titles of a `difflib` ratio above .9 and with one product type (the last
two words of a title) alone, and the number of different items. With the e-mails of the day before: the share
of slots that they have too, for users without an event between. With events since the run date: NDCG@5 of
the slots and of the five best recommendations, for users whose next event is of an item among their
candidates.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from allmrec.metrics import bootstrap_intervals
from tests.steps.reading import rows

CAP = 2
ALIKE = 0.9
SLOTS = 5
Emails = Mapping[str, Sequence[str]]
"""User → item ids by slot."""


def main(root: Path, run_date: date) -> None:
    """Print the figures of a night."""
    emails = emails_of(root, run_date)
    items = rows(root, "items").drop_duplicates("item_id").set_index("item_id")
    leaves = {
        item: path[-1] if path is not None and len(path) else item
        for item, path in items["categories"].items()
    }
    print(f"{run_date}: {len(emails):,} e-mails")
    for name, value in figures(emails, items["title"].to_dict(), leaves).items():
        print(f"  {name}: {value}")
    before = emails_of(root, run_date - timedelta(days=1))
    if before:
        quiet = users_without_event(root, run_date)
        print(
            f"  overlap with the day before, users without an event between: {overlap(emails, before, quiet)}"
        )
    log = rows(root, "interactions")
    after = log[pd.to_datetime(log["event_time"], utc=True) >= pd.Timestamp(run_date, tz="UTC")]
    if len(after):
        truth = after.sort_values("event_time").groupby("user_id")["item_id"].first().to_dict()
        print(f"  NDCG@5: {loss(emails, plain_order(root, run_date), truth)}")


def emails_of(root: Path, run_date: date) -> Emails:
    """Return the e-mails of a date; empty where there are none."""
    found = rows(root, "email_recommendations", run_date=str(run_date))
    if not len(found):
        return {}
    return {
        user: [slot["item_id"] for slot in slots]
        for user, slots in zip(found["user_id"], found["slots"], strict=True)
    }


def plain_order(root: Path, run_date: date) -> Emails:
    """Return every user's recommendations by rank."""
    found = rows(root, "recommendations", run_date=str(run_date)).sort_values("rank")
    return found.groupby("user_id")["item_id"].agg(list).to_dict()


def users_without_event(root: Path, run_date: date) -> set[str]:
    """Return the users of a date whose last event is older than the day before it."""
    found = rows(root, "user_sequences", run_date=str(run_date))
    last = pd.to_datetime(found["last_event_time"], utc=True)
    is_quiet = ~(last >= pd.Timestamp(run_date - timedelta(days=1), tz="UTC"))
    return set(found.loc[is_quiet, "user_id"])


def figures(emails: Emails, titles: Mapping[str, str], leaves: Mapping[str, str]) -> dict[str, str]:
    """Return the shares of e-mails by what is wrong with them, and the number of items."""
    over = [max(Counter(leaves[item] for item in own).values()) > CAP for own in emails.values()]
    alike = [are_alike([titles[item] for item in own]) for own in emails.values()]
    types = [
        len({product_type(titles[item]) for item in own}) == 1 < SLOTS == len(own) for own in emails.values()
    ]
    return {
        f"over {CAP} of a leaf category": f"{np.mean(over):.2%}",
        f"two titles with a ratio above {ALIKE}": f"{np.mean(alike):.2%}",
        "five of one product type": f"{np.mean(types):.2%}",
        f"full ({SLOTS} slots)": f"{np.mean([len(own) == SLOTS for own in emails.values()]):.2%}",
        "different items": f"{len({item for own in emails.values() for item in own}):,}",
    }


def are_alike(titles: Sequence[str]) -> bool:
    """Return whether two titles have a ratio above `ALIKE`, in lower case."""
    pairs = combinations([title.lower() for title in titles], 2)
    return any(SequenceMatcher(None, *pair).ratio() > ALIKE for pair in pairs)


def product_type(title: str) -> str:
    """Return the last two words of a title, in lower case."""
    return " ".join(title.lower().split()[-2:])


def overlap(emails: Emails, before: Emails, users: set[str]) -> str:
    """Return the mean share of slots whose item the e-mail before has too."""
    shares = [
        len(set(own) & set(before[user])) / len(own)
        for user, own in emails.items()
        if user in users and user in before
    ]
    return f"{np.mean(shares):.2f} (n={len(shares):,})" if shares else "nobody"


def loss(emails: Emails, plain: Emails, truth: Mapping[str, str]) -> str:
    """Return NDCG@5 of the slots and of the plain order, with the 95 % interval of the difference."""
    users = [user for user in emails if truth.get(user) in plain[user]]
    if not users:
        return "nobody's next item is among the candidates"
    ours, theirs = (
        np.array([gain(order[user][:SLOTS], truth[user]) for user in users]) for order in (emails, plain)
    )
    [low], [high] = bootstrap_intervals((ours - theirs)[:, None])
    return (
        f"{ours.mean():.4f} against {theirs.mean():.4f} by rank, {ours.mean() / theirs.mean() - 1:+.1%}; "
        f"difference [{low:+.4f}, {high:+.4f}] (n={len(users):,})"
    )


def gain(order: Sequence[str], item: str) -> float:
    """Return 1 / log2(1 + place) of an item, 0 where it is missing."""
    return 1 / np.log2(2 + list(order).index(item)) if item in order else 0.0


if __name__ == "__main__":
    main(Path(sys.argv[1]), date.fromisoformat(sys.argv[2]))

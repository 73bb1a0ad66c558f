"""Which source fills which places of a user's list.

    1. Sources without a quota fill the places that no quota reserves, one after another.
    2. Every source with a quota adds as many other items.
    3. Sources without a quota fill the places that are left.

An item that several sources find belongs to the first one that adds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from allmrec.scoring.assortment import AskedUsers
from allmrec.scoring.sources.source import Source

Chosen = dict[int, str]
"""item_idx → name of the source, in the order of the list."""


def filled_lists(sources: Sequence[Source], users: AskedUsers, wanted: int) -> list[Chosen]:
    """Return the list of every user, at most `wanted` items each.

    A source is asked only if a list has a place for it. If the quotas exceed `wanted`, those of the first
    sources count.
    """
    lists: list[Chosen] = [{} for _ in range(len(users))]
    quotas = _quotas(sources, wanted)
    num_open = wanted - sum(quotas.values())
    found: dict[int, list[list[int]]] = {}

    def add(number: int, limits: Sequence[int]) -> None:
        if all(len(chosen) >= limit for chosen, limit in zip(lists, limits, strict=True)):
            return
        source = sources[number]
        if number not in found:
            found[number] = source.candidates(users, wanted).tolist()
        for chosen, items, limit in zip(lists, found[number], limits, strict=True):
            _add(chosen, items, source.name, limit)

    without_quota = [number for number in range(len(sources)) if number not in quotas]
    for number in without_quota:
        add(number, [num_open] * len(lists))
    for number, quota in quotas.items():
        add(number, [min(wanted, len(chosen) + quota) for chosen in lists])
    for number in without_quota:
        add(number, [wanted] * len(lists))
    return lists


def _quotas(sources: Sequence[Source], wanted: int) -> dict[int, int]:
    """Return the quotas by the source's number, together at most `wanted`."""
    quotas: dict[int, int] = {}
    for number, source in enumerate(sources):
        if source.quota is not None:
            quotas[number] = min(source.quota, wanted - sum(quotas.values()))
    return quotas


def _add(chosen: Chosen, items: Sequence[int], name: str, limit: int) -> None:
    """Add items that the list lacks, up to `limit` in all; 0 ends them."""
    for item in items:
        if len(chosen) >= limit or not item:
            return
        chosen.setdefault(item, name)

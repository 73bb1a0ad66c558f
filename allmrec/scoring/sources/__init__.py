"""Candidate sources by name: everything that finds candidates, one entry of a table each.

    cf        the best of all items by all signals, for users whom the CF model knows
    text      the same for users whose history the CF model does not know
    rare      the best of the rare items without the CF model; `candidates.text_quota` places
    popular   the items with most interactions, where the others find too few

A new source is a class with `name`, `quota` and `candidates`, and an entry of `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable

from allmrec.scoring.assortment import Assortment
from allmrec.scoring.sources.popular import PopularItems
from allmrec.scoring.sources.search import BestByAllSignals, BestRare, BestWithoutCF
from allmrec.scoring.sources.source import Source

SOURCES: dict[str, Callable[[Assortment], Source]] = {
    "cf": BestByAllSignals,
    "text": BestWithoutCF,
    "rare": BestRare,
    "popular": PopularItems,
}
"""Every source, in the order in which a list is filled (`allmrec.scoring.sources.places`)."""

"""The catalogue of the demo shop, from `catalogue.yaml`: products, brands, successors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Brand(NamedTuple):
    """A brand and its price tier: 1 (budget) to 3 (premium)."""

    name: str
    tier: int


class Product(NamedTuple):
    """A product type: name, four variants, benefit.

    A title has the variant before the name. `benefit` is the first sentence of a description.
    """

    name: str
    variants: tuple[str, str, str, str]
    benefit: str
    bought_again: bool = False
    """Whether people buy the same item again (such as coffee beans)."""


class Category(NamedTuple):
    """A leaf category: path from the root, uses, product types.

    Product types that are usually bought first come first.
    """

    path: tuple[str, ...]
    uses: tuple[str, str, str]
    products: tuple[Product, ...]


_DATA: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

BRANDS: dict[str, tuple[Brand, ...]] = {
    department: tuple(Brand(name, tier) for name, tier in tiers.items())
    for department, tiers in _DATA["brands"].items()
}
"""Brands by department."""

CATEGORIES: tuple[Category, ...] = tuple(
    Category(
        tuple(category["path"]),
        tuple(category["uses"]),
        tuple(
            Product(
                product["name"], tuple(product["variants"]), product["benefit"], product.get("again", False)
            )
            for product in category["products"]
        ),
    )
    for category in _DATA["categories"]
)

CHAINS: tuple[tuple[str, ...], ...] = tuple(map(tuple, _DATA["chains"]))
"""Product types that are bought one after another."""


def successors() -> dict[str, tuple[str, ...]]:
    """Return product type → types that are often bought next."""
    following: dict[str, list[str]] = {}
    for chain in CHAINS:
        for first, second in pairwise(chain):
            following.setdefault(first, []).append(second)
    return {name: tuple(names) for name, names in following.items()}

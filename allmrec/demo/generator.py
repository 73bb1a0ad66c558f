"""The generator of the demo shop: items, customers with tastes, related purchases.

A customer buys by these rules, from which models can learn:
- taste: two to four favourite categories, one favourite brand per department, and a price tier;
- order: with probability `FOLLOW` the next purchase is a successor of the last one (a tent, then a sleeping
  bag), with `FOLLOW_EARLIER` of the rest a successor of the one before it; otherwise taste decides, and an
  owned product type is rarely bought again;
- popularity: item number r of a product type is bought in proportion to r^-0.9, category number r is a
  favourite in proportion to r^-0.6; hence a long tail.

Items of the last days have no purchase yet. Items are combined from `catalogue.py`; `dirty_rows.py` adds the
mistakes. Everything is drawn from the seed, a customer's purchases from the seed and the customer's id.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from allmrec import seeds
from allmrec.demo.catalogue import BRANDS, CATEGORIES, Brand, Category, Product, successors
from allmrec.demo.dirty_rows import dirty_interactions, dirty_items, odd_users

DAYS = 180
"""Days of purchases."""
ACTIVE_SHARE = 0.15
"""Share of the users whose last purchase is in the last seven days."""
NEW_SHARE = 0.05
"""Share of the items that were added in the last days and have no purchase."""
UNAVAILABLE_SHARE = 0.015
"""Share of the items that are sold out."""
FOLLOW = 0.6
"""Chance that a purchase is a successor of the last one."""
FOLLOW_EARLIER = 0.3
"""Chance that any other purchase is a successor of the one before the last."""
OWNED_WEIGHT = 0.05
"""Weight of a product type that the customer owns, relative to other types."""
ENTRY_WEIGHTS = (4.0, 2.0, 1.5, 1.0, 1.0)
"""Weights of a category's first, second, … product type for a purchase by taste."""
BUY_AGAIN = 0.02
"""Chance that a purchase repeats an earlier one, such as coffee, flour or strings."""


class Item(NamedTuple):
    """An item of the shop.

    `popularity` is its weight within its product type, 0 for items that are too new for a purchase.
    """

    item_id: str
    title: str
    description: str
    category: Category
    product: Product
    brand: Brand
    popularity: float
    available: bool
    updated_at: str


class Taste(NamedTuple):
    """A customer: weights of all product types, favourite brands, price tier.

    The weights do not sum to 1. There is a favourite brand per department.
    """

    types: dict[str, float]
    brands: dict[str, str]
    tier: int


class Shop(NamedTuple):
    """The three tables. Times are ISO 8601 texts in UTC, because some are no times."""

    interactions: pd.DataFrame
    """user_id, item_id, event_time, rating (float or missing), event_type"""
    items: pd.DataFrame
    """item_id, title, description, categories (list, root to leaf), available (bool), updated_at"""
    users: pd.DataFrame
    """user_id: all accounts, also of customers without a purchase"""


def generate_shop(num_users: int = 2000, num_items: int = 800, *, seed: int, last_day: date) -> Shop:
    """Return the shop of `seed`, whose newest purchases are on `last_day`.

    The first run date that sees all of them is the day after. `num_items` (40 to 1,600) and `num_users` (≥
    20) are numbers of valid rows; dirty rows are added. Raises ValueError for numbers out of range.
    """
    if not 40 <= num_items <= 1600 or num_users < 20:
        raise ValueError(
            f"num_users {num_users}, num_items {num_items}: expected at least 20 users and 40 to 1600 items"
        )
    stock = _stock(num_items, seed, last_day)
    shelves: dict[str, list[Item]] = {}
    for item in stock:
        if item.popularity > 0:
            shelves.setdefault(item.product.name, []).append(item)
    categories = [
        category for category in CATEGORIES if any(product.name in shelves for product in category.products)
    ]
    user_ids = [f"user-{number:05d}" for number in range(1, num_users + 1)]
    active = _active_users(num_users, seed)
    events = [
        event
        for user_id, is_active in zip(user_ids, active, strict=True)
        for event in _purchases(user_id, is_active, categories, shelves, seed, last_day)
    ]
    interactions = pd.DataFrame(events, columns=["user_id", "item_id", "event_time", "rating", "event_type"])
    items = pd.DataFrame([_item_row(item) for item in stock])
    bad_interactions = dirty_interactions(interactions, user_ids, last_day, seed)
    users = pd.DataFrame({"user_id": [*user_ids, *odd_users()]})
    everything = pd.concat([interactions, bad_interactions], ignore_index=True)
    order = seeds.generator(seed, "demo", "order").permutation(len(everything))
    return Shop(
        everything.iloc[order].reset_index(drop=True),
        pd.concat([items, dirty_items(items, last_day)], ignore_index=True),
        users,
    )


def write_shop(
    folder: Path, num_users: int = 2000, num_items: int = 800, *, seed: int, last_day: date
) -> Shop:
    """Write the shop of `generate_shop` to `folder` and return it.

    The files are `interactions.csv`, `items.jsonl` and `users.csv`, in UTF-8. The same seed gives the same
    bytes. In the CSV a missing value is an empty field and an empty text is `""`.
    """
    shop = generate_shop(num_users, num_items, seed=seed, last_day=last_day)
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "interactions.csv", shop.interactions)
    _write_csv(folder / "users.csv", shop.users)
    with (folder / "items.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for row in shop.items.to_dict("records"):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return shop


def _stock(num_items: int, seed: int, last_day: date) -> list[Item]:
    """Return the valid items, spread evenly over the product types in use.

    As many categories are in use as `num_items` can fill.
    """
    rng = seeds.generator(seed, "demo", "stock")
    categories = CATEGORIES[: max(2, min(len(CATEGORIES), num_items // 20))]
    shelves = [(category, product) for category in categories for product in category.products]
    new = set(rng.choice(num_items, size=max(2, round(NEW_SHARE * num_items)), replace=False).tolist())
    sold_out = set(
        rng.choice(num_items, size=max(1, round(UNAVAILABLE_SHARE * num_items)), replace=False).tolist()
    )
    stock: list[Item] = []
    for position, (category, product) in enumerate(shelves):
        combinations = [
            (brand, variant) for brand in BRANDS[category.path[0]] for variant in product.variants
        ]
        count = num_items // len(shelves) + (position < num_items % len(shelves))
        for rank, choice in enumerate(rng.permutation(len(combinations))[:count], start=1):
            brand, variant = combinations[choice]
            number = len(stock)
            age_days = int(rng.integers(0, 5)) if number in new else int(rng.integers(DAYS, 3 * DAYS))
            stock.append(
                Item(
                    item_id=f"{category.path[0][:3].upper()}-{number + 1:04d}",
                    title=f"{brand.name} {variant} {product.name}",
                    description=_description(rng, category, product, brand, variant),
                    category=category,
                    product=product,
                    brand=brand,
                    popularity=0.0 if number in new else rank**-0.9,
                    available=number in new or number not in sold_out,
                    updated_at=_iso(last_day - timedelta(days=age_days), float(rng.uniform(8, 18)) * 3600),
                )
            )
    return stock


def _description(
    rng: np.random.Generator, category: Category, product: Product, brand: Brand, variant: str
) -> str:
    """Return one or two sentences of a shop about an item."""
    use = category.uses[int(rng.integers(3))]
    second = (
        f"From {brand.name}, for {use}.",
        f"{variant} version, made for {use}.",
        f"Ideal for {use}.",
        "",
    )[int(rng.integers(4))]
    return f"{product.benefit}. {second}".strip()


def _item_row(item: Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "description": item.description,
        "categories": list(item.category.path),
        "available": item.available,
        "updated_at": item.updated_at,
    }


def _active_users(num_users: int, seed: int) -> np.ndarray:
    """Return who bought in the last seven days, bool `[num_users]`."""
    active = np.zeros(num_users, dtype=bool)
    active[
        seeds.generator(seed, "demo", "active").permutation(num_users)[: round(ACTIVE_SHARE * num_users)]
    ] = True
    return active


def _taste(rng: np.random.Generator, categories: list[Category], shelves: dict[str, list[Item]]) -> Taste:
    num = len(categories)
    general = np.arange(1, num + 1) ** -0.6
    favourites = rng.choice(
        num, size=min(num, int(rng.integers(2, 5))), replace=False, p=general / general.sum()
    )
    weights = 0.04 * general / general.sum()
    weights[favourites] += rng.dirichlet(np.full(len(favourites), 2.0))
    types = {
        product.name: float(weight * entry)
        for category, weight in zip(categories, weights, strict=True)
        for product, entry in zip(category.products, ENTRY_WEIGHTS, strict=True)
        if product.name in shelves
    }
    brands = {
        department: brands[int(rng.integers(len(brands)))].name for department, brands in BRANDS.items()
    }
    return Taste(types, brands, int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25])))


def _purchases(
    user_id: str,
    is_active: bool,
    categories: list[Category],
    shelves: dict[str, list[Item]],
    seed: int,
    last_day: date,
) -> Iterable[tuple[str, str, str, float | None, str]]:
    """Yield one customer's purchases, oldest first, as rows of `Shop.interactions`."""
    rng = seeds.generator(seed, "demo", user_id)
    taste = _taste(rng, categories, shelves)
    count = 1 if rng.random() < 0.02 else min(30, 2 + int(rng.gamma(1.6, 5.5)))
    types: list[str] = []
    bought: list[Item] = []
    for _ in range(count):
        again = [item for item in bought if item.product.bought_again]
        if again and rng.random() < BUY_AGAIN:
            bought.append(again[int(rng.integers(len(again)))])
            continue
        name = _next_type(rng, types, taste)
        item = _pick(rng, shelves[name], taste, {item.item_id for item in bought})
        if item is not None:
            types.append(name)
            bought.append(item)
    for item, moment in zip(bought, _moments(rng, len(bought), is_active, last_day), strict=True):
        liked = (
            4.1 + 0.4 * (item.brand.name in taste.brands.values()) - 0.4 * abs(item.brand.tier - taste.tier)
        )
        rating = float(np.clip(np.round(rng.normal(liked, 0.8)), 1, 5)) if rng.random() < 0.6 else None
        yield user_id, item.item_id, moment, rating, "purchase"


def _next_type(rng: np.random.Generator, types: list[str], taste: Taste) -> str:
    """Return the next product type: a successor, else one to taste."""
    for back, chance in ((1, FOLLOW), (2, FOLLOW_EARLIER)):
        if len(types) >= back and rng.random() < chance:
            following = [
                name for name in SUCCESSORS.get(types[-back], ()) if name in taste.types and name not in types
            ]
            if following:
                return following[int(rng.integers(len(following)))]
    weights = np.array(
        [weight * (OWNED_WEIGHT if name in types else 1.0) for name, weight in taste.types.items()]
    )
    return list(taste.types)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def _pick(rng: np.random.Generator, shelf: list[Item], taste: Taste, bought: set[str]) -> Item | None:
    """Return an item of a product type to buy, or None.

    Popular items, the favourite brand and the right price are more likely.
    """
    left = [item for item in shelf if item.item_id not in bought]
    if not left:
        return None
    favourite = taste.brands[left[0].category.path[0]]
    weights = np.array(
        [
            item.popularity
            * (5.0 if item.brand.name == favourite else 1.0)
            * float(np.exp(-0.8 * abs(item.brand.tier - taste.tier)))
            for item in left
        ]
    )
    return left[int(rng.choice(len(left), p=weights / weights.sum()))]


def _moments(rng: np.random.Generator, count: int, is_active: bool, last_day: date) -> list[str]:
    """Return `count` ISO times, oldest first; purchases of a basket share one.

    Only active customers have their newest time in the last seven days.
    """
    end = int(rng.integers(0, 7)) if is_active else int(7 + (DAYS - 8) * rng.beta(1.0, 1.6))
    start = min(DAYS - 1.0, end + rng.uniform(2.0, 9.0) * count)
    days_ago = np.sort(np.floor(np.append(rng.uniform(end, start, size=max(0, count - 1)), end)))[::-1][
        :count
    ]
    seconds = rng.uniform(7 * 3600, 21.5 * 3600, size=count)
    for index in range(1, count):
        if days_ago[index] == days_ago[index - 1]:
            basket = rng.random() < 0.25
            seconds[index] = (
                seconds[index - 1] if basket else min(86_399.0, seconds[index - 1] + rng.uniform(60, 600))
            )
    return [
        _iso(last_day - timedelta(days=int(days)), float(second))
        for days, second in zip(days_ago, seconds, strict=True)
    ]


def _iso(day: date, seconds: float) -> str:
    moment = datetime.combine(day, time(), timezone.utc) + timedelta(seconds=int(seconds))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write texts in quotes and missing values as nothing."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        csv.writer(file, lineterminator="\n").writerow(table.columns)
        for row in table.itertuples(index=False):
            file.write(",".join(_csv_field(value) for value in row) + "\n")


def _csv_field(value: str | float | None) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return "" if value is None or pd.isna(value) else f"{value:g}"


SUCCESSORS = successors()

"""The demo shop: one seed gives the same bytes, order carries a signal, mistakes of every kind are in it."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from allmrec.demo.catalogue import BRANDS, CATEGORIES, CHAINS, successors
from allmrec.demo.generator import Shop, generate_shop, write_shop

LAST_DAY = date(2026, 11, 20)
SEED = 20261121
GOOD_ID = re.compile(r"[A-Z]{3}-\d{4}")
PRODUCTS = sorted(
    {product.name for category in CATEGORIES for product in category.products}, key=len, reverse=True
)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return generate_shop(600, 800, seed=SEED, last_day=LAST_DAY)


def _well_formed(shop: Shop) -> pd.DataFrame:
    """The generated purchases without the dirty rows, oldest first, with the product type."""
    items = (
        shop.items[shop.items["item_id"].fillna("").str.fullmatch(GOOD_ID)]
        .drop_duplicates("item_id")
        .set_index("item_id")
    )
    types = items["title"].map(lambda title: next(name for name in PRODUCTS if title.endswith(name)))
    log = shop.interactions.dropna(subset=["user_id", "event_time"]).drop_duplicates()
    log = log[
        log["user_id"].str.startswith("user-0")
        & log["item_id"].isin(items.index)
        & log["event_time"].str.fullmatch(r"2026-\d\d-\d\dT.*Z")
    ]
    return log.assign(product=log["item_id"].map(types)).sort_values(["user_id", "event_time", "item_id"])


def test_the_same_seed_leaves_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_shop(tmp_path / name, 120, 60, seed=seed, last_day=LAST_DAY)
    for file in ("interactions.csv", "items.jsonl", "users.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / "interactions.csv").read_bytes() != (
        tmp_path / "c" / "interactions.csv"
    ).read_bytes()


def test_the_files_tell_an_empty_text_from_a_missing_one(tmp_path: Path) -> None:
    shop = write_shop(tmp_path, 120, 60, seed=SEED, last_day=LAST_DAY)
    lines = (tmp_path / "interactions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "user_id,item_id,event_time,rating,event_type"
    assert sum(line.startswith(",") for line in lines) == 1
    assert sum(line.startswith('"",') for line in lines) == 1
    items = [
        json.loads(line) for line in (tmp_path / "items.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    assert len(items) == len(shop.items)
    assert items[0]["categories"] == ["Outdoor", "Camping", "Tents & Sleeping"]
    assert items[0]["available"] in (
        True,
        False,
    )


def test_what_follows_a_purchase_depends_on_it(shop: Shop) -> None:
    log = _well_formed(shop)
    following = successors()
    pairs = [
        (first, second)
        for first, second, user, other in zip(
            log["product"], log["product"].shift(-1), log["user_id"], log["user_id"].shift(-1), strict=True
        )
        if user == other and first in following
    ]
    base = Counter(log["product"])
    hits = sum(second in following[first] for first, second in pairs) / len(pairs)
    by_chance = (
        sum(sum(base[name] for name in following[first]) for first, _ in pairs) / len(pairs) / len(log)
    )
    assert hits > 0.4
    assert hits > 10 * by_chance
    backwards = sum(first in following.get(second, ()) for first, second in pairs) / len(pairs)
    assert hits > 4 * backwards


def test_popularity_has_a_tail_and_new_items_have_no_purchase(shop: Shop) -> None:
    counts = _well_formed(shop)["item_id"].value_counts()
    assert counts.iloc[: len(counts) // 10].sum() > 0.3 * counts.sum()
    new = shop.items[shop.items["updated_at"] >= "2026-11-16"]
    assert 30 <= len(new) <= 50
    assert not set(new["item_id"]) & set(shop.interactions["item_id"])
    assert set(new["available"]) == {True}
    assert (~shop.items["available"]).sum() >= 5


def test_about_one_user_in_seven_bought_in_the_last_week(shop: Shop) -> None:
    log = _well_formed(shop)
    last = log.groupby("user_id")["event_time"].max()
    assert 0.14 < (last >= "2026-11-14").mean() < 0.16
    assert last.max() < "2026-11-21"
    assert log["event_time"].min() >= "2026-05-23"
    assert 8 < len(log) / log["user_id"].nunique() < 12


def test_titles_are_unique_and_name_the_product_and_the_catalogue_is_complete(shop: Shop) -> None:
    items = shop.items[shop.items["item_id"].fillna("").str.fullmatch(GOOD_ID)].drop_duplicates("item_id")
    assert len(items) == 800
    assert items["title"].is_unique
    assert items["categories"].map(tuple).nunique() == 20 == len(CATEGORIES)
    assert items["title"].str.len().max() <= 60
    assert items["description"].str.len().min() > 15
    assert {category.path[0] for category in CATEGORIES} <= set(BRANDS)
    assert {name for chain in CHAINS for name in chain} == set(PRODUCTS)


def test_wrong_interactions_of_every_kind_are_there(shop: Shop) -> None:
    log = shop.interactions
    assert log["user_id"].isna().any()
    assert (log["user_id"] == "").any()
    assert (log["user_id"].fillna("x").str.strip() == "").sum() == 2
    assert log["item_id"].isna().any()
    assert (log["item_id"] == "").any()
    assert log["event_time"].isna().any()
    assert {
        "last Tuesday",
        "2026-13-45 25:61:00",
        "2099-01-01T00:00:00Z",
    } <= set(log["event_time"])
    assert log["rating"].max() == 99
    assert log["rating"].min() == -1
    assert log["rating"].isna().any()
    assert log.duplicated().sum() >= 5
    assert {"GONE-0001", "GONE-0002"} == set(log["item_id"].dropna()) - set(
        shop.items["item_id"].dropna()
    ) - {""}
    assert {"00123", "123", "1e5", "user-with-one-purchase"} <= set(log["user_id"])
    assert {
        "00042",
        "42",
        "1e3",
    } <= set(log["item_id"])
    without_events = set(shop.users["user_id"]) - set(log["user_id"])
    assert without_events == {f"user-new-{number}" for number in range(1, 6)}


def test_odd_and_wrong_titles_of_every_kind_are_there(shop: Shop) -> None:
    titles = shop.items["title"]
    known = set(titles.dropna())
    assert titles.isna().any()
    assert "" in known
    assert max(map(len, known)) == 10_000
    for pattern in (
        "\N{TENT}",
        "\x00",
        "\u202e",
        "[\u0590-\u05ff]",
        '"',
        "Bought together:",
        r"\[UserRep\]",
        r"<\|im_end\|>",
        "&amp;amp;",
        "<b>",
    ):
        assert titles.str.contains(pattern, na=False).any(), pattern
    assert shop.items["item_id"].isna().any()
    assert (shop.items["item_id"] == "").any()
    assert shop.items["item_id"].duplicated().any()
    assert (titles == "Pine Ridge Mosquito Net").sum() == 2


@pytest.mark.parametrize(("num_users", "num_items"), [(20, 40), (120, 60), (30, 1600)])
def test_small_and_large_shops_hold_what_was_asked_for(num_users: int, num_items: int) -> None:
    shop = generate_shop(num_users, num_items, seed=3, last_day=LAST_DAY)
    assert shop.items["item_id"].fillna("").str.fullmatch(GOOD_ID).sum() == num_items + 1  # one of them twice
    assert shop.users["user_id"].str.startswith("user-0").sum() == num_users


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="40 to 1600 items"):
        generate_shop(100, 10, seed=1, last_day=LAST_DAY)

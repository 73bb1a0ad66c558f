"""Rules, recipients and arms on real tables: what is published, recorded and refused."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from pyspark.sql import functions as F

from allmrec.errors import ConfigError, InputError
from allmrec.ranking.arms import arms_of
from allmrec.runtime.night import Night
from tests.spark.test_publish import DAY, FIRST, PLAIN, Shop, item, saved, shop

__all__ = ["saved", "shop"]
"""Fixtures."""

AFTER = DAY + timedelta(days=1)


def rules(*own: str) -> str:
    return f"publish.rules=[{', '.join(own)}]"


def with_users(shop: Shop, *rows: tuple[str, str, int]) -> str:
    """Write a table of customers (id, country, newsletter) and return the setting that reads it."""
    folder = str(shop.folder / "customers")
    frame = shop.spark.createDataFrame(rows, "user_id string, country string, newsletter int")
    frame.write.format("delta").mode("overwrite").save(folder)
    return f"tables.users.path={folder}"


def named(shop: Shop, day: date = DAY) -> dict[str, list[str | None]]:
    """The rule of every slot of every e-mail."""
    rows = shop.context().tables.read_date("email_recommendations", day).collect()
    return {row["user_id"]: [slot["rule"] for slot in row["slots"]] for row in rows}


def test_excluded_items_are_in_no_slot_and_buried_ones_are_last(shop: Shop) -> None:
    shop.offer(brands={1: "Acme", 2: "Acme", 3: "Zeta"})
    shop.score(DAY, {"u": [1, 2, 3, 4, 5, 6], "short": [1, 3, 4]})
    own = (
        "{name: acme, kind: exclude, where: \"made_by = 'Acme'\"}",
        "{name: zeta, kind: bury, where: \"made_by = 'Zeta' AND array_contains(categories, 'candle')\"}",
    )
    counts = shop.publish(DAY, *PLAIN, rules(*own))
    assert shop.shown(DAY) == {"u": [4, 5, 6, 3], "short": [4, 3]}
    assert shop.shown(DAY, "feed_recommendations")["u"] == [4, 5, 6, 3]
    assert named(shop)["u"] == [None, None, None, "zeta"]
    assert (counts["rule_items_acme"], counts["rule_items_zeta"]) == (2, 1)


def test_pins_and_boosts_have_their_slots_and_are_named_in_them(shop: Shop) -> None:
    shop.offer(brands={9: "Zeta", 10: "Zeta", 11: "Zeta"})
    customers = with_users(shop, ("u", "DE", 1), ("v", "FR", 1))
    shop.score(DAY, {"u": FIRST, "v": FIRST, "unknown": FIRST})
    own = (
        "{name: lamp, kind: pin, item: i030, slot: 2, users: \"country = 'DE'\"}",
        "{name: first, kind: pin, item: i003, slot: 1}",
        "{name: zeta, kind: boost, where: \"made_by = 'Zeta'\", share: 0.4}",
    )
    shop.publish(DAY, *PLAIN, customers, rules(*own))
    assert shop.shown(DAY) == {
        "u": [3, 30, 1, 9, 10],
        "v": [3, 1, 2, 9, 10],
        "unknown": [3, 1, 2, 9, 10],
    }
    assert named(shop)["u"] == ["first", "lamp", None, "zeta", "zeta"]
    assert all(30 not in numbers for numbers in shop.shown(DAY, "feed_recommendations").values())
    row = shop.context().tables.read_date("email_recommendations", DAY).where("user_id = 'u'").first()
    assert row is not None
    assert row["slots"][1]["title"] == "fan"
    assert row["slots"][1]["rank"] is None
    assert row["slots"][0]["rank"] == 3


def test_items_are_hidden_from_the_users_that_a_rule_names(shop: Shop) -> None:
    customers = with_users(shop, ("u", "DE", 1), ("v", "FR", 1), ("only", "DE", 1))
    shop.score(DAY, {"u": FIRST, "v": FIRST, "only": [1, 2]})
    own = "{name: young, kind: hide, where: \"item_id IN ('i001', 'i002')\", users: \"country = 'DE'\"}"
    shop.publish(DAY, *PLAIN, customers, rules(own), "gates.max_unpublished_share=1.0")
    assert shop.shown(DAY) == {"u": [3, 4, 5, 6, 7], "v": [1, 2, 3, 4, 5]}
    assert shop.shown(DAY, "feed_recommendations")["u"] == FIRST[2:12]


def test_only_recipients_get_an_email_and_the_others_keep_their_feed(shop: Shop) -> None:
    customers = with_users(shop, ("u", "DE", 1), ("v", "FR", 0), ("w", "DE", 1))
    shop.score(DAY, {name: FIRST for name in ("u", "v", "w", "unknown")})
    counts = shop.publish(DAY, *PLAIN, customers, "publish.recipients=newsletter = 1")
    assert set(shop.shown(DAY)) == {"u", "w"}
    assert set(shop.shown(DAY, "feed_recommendations")) == {"u", "v", "w", "unknown"}
    assert (counts["email_users"], counts["feed_users"]) == (2, 4)


def test_rules_of_a_table_apply_on_their_dates_and_a_rerun_writes_the_same_rows(shop: Shop) -> None:
    folder = str(shop.folder / "campaign")
    columns = "name string, kind string, where string, item string, slot int, first_date date, author string"
    own = [
        ("lamp", "pin", None, item(20), 1, AFTER, "Ada"),
        ("no-anchor", "exclude", "title = 'anchor'", None, None, None, None),
    ]
    shop.spark.createDataFrame(own, columns).write.format("delta").save(folder)
    for day in (DAY, AFTER):
        shop.score(day, {"u": FIRST})
        shop.publish(day, *PLAIN, "publish.not_again_days=0", f"tables.rules={folder}")
    assert shop.shown(DAY) == {"u": [2, 3, 4, 5, 6]}
    assert shop.shown(AFTER) == {"u": [20, 2, 3, 4, 5]}
    version = shop.version()
    for day in (DAY, AFTER):
        shop.publish(day, *PLAIN, "publish.not_again_days=0", f"tables.rules={folder}")
    assert shop.version() == version, "each date is there"
    shop.publish(AFTER, *PLAIN, "publish.not_again_days=0", f"tables.rules={folder}", force=True)
    assert shop.shown(AFTER) == {"u": [20, 2, 3, 4, 5]}
    row = Night(shop.context(), AFTER).latest("publish", "done")
    assert row is not None
    assert any(key.startswith("rules (") for key in row.input_versions)


def test_a_rule_of_another_date_leaves_a_date_done(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST})
    shop.publish(DAY, *PLAIN)
    version = shop.version()
    later = "{name: later, kind: exclude, where: \"title = 'anchor'\", first_date: 2026-06-02}"
    shop.publish(DAY, *PLAIN, rules(later))
    assert shop.version() == version


EXCLUDE = "{name: x, kind: exclude, where: \"title = 'anchor'\"}"
PIN = "{name: p, kind: pin, item: i001, slot: 1%s}"


MISFITS: list[tuple[list[str], str]] = [
    (["{name: x, kind: exclude, where: \"title = 'none'\"}"], "rule x: names no item of the catalogue"),
    (["{name: x, kind: exclude, where: titel = 1}"], "rule x: where: titel = 1: .*titel"),
    (["{name: x, kind: exclude, where: title =}"], "rule x: where: title =: "),
    (["{name: x, kind: exclude, where: title}"], "rule x: where: title: "),
    (["{name: x, kind: bury, where: max(title) = 'a'}"], "rule x: where: max"),
    (["{name: p, kind: pin, item: i999, slot: 1}"], "rule p: names no item"),
    (["{name: p, kind: pin, item: i029, slot: 1}"], "rule p: item i029 is not available"),
    ([PIN % "", EXCLUDE], "rules p and x: pin and exclude item i001"),
    ([PIN % ", users: country = 'XX'"], "rule p: users: names no user"),
    (
        [
            PIN % ", users: newsletter = 1",
            "{name: q, kind: pin, item: i002, slot: 1, users: country = 'DE'}",
        ],
        "rules p and q: pin item i001 to slot 1 and item i002 to slot 1 for the same users",
    ),
    (
        [PIN % "", "{name: h, kind: hide, where: item_id = 'i001', users: country = 'DE'}"],
        "rules p and h: pin and hide item i001 for the same users",
    ),
]
"""Rules that do not fit the shop, and the beginnings of the messages."""


def test_rules_that_do_not_fit_the_tables_are_refused_and_old_emails_stay(shop: Shop) -> None:
    shop.offer(available={29: False})
    customers = with_users(shop, ("u", "DE", 1), ("v", "FR", 0))
    shop.score(DAY, {"u": FIRST})
    shop.publish(DAY, *PLAIN)
    before = shop.version()
    for own, told in MISFITS:
        with pytest.raises(ConfigError, match=told) as raised:
            shop.publish(DAY, *PLAIN, customers, rules(*own))
        assert len(str(raised.value).splitlines()) == 1
        assert shop.version() == before


def test_pins_of_one_slot_for_other_users_are_published(shop: Shop) -> None:
    customers = with_users(shop, ("u", "DE", 1), ("v", "FR", 0))
    shop.score(DAY, {"u": FIRST, "v": FIRST})
    own = (
        "{name: p, kind: pin, item: i008, slot: 1, users: \"country = 'DE'\"}",
        "{name: q, kind: pin, item: i009, slot: 1, users: newsletter = 0}",
    )
    shop.publish(DAY, *PLAIN, customers, rules(*own))
    assert [numbers[0] for _, numbers in sorted(shop.shown(DAY).items())] == [8, 9]


def test_a_condition_that_names_no_recipient_or_lacks_the_table_is_refused(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST})
    with pytest.raises(ConfigError, match="there is no table users"):
        shop.publish(DAY, *PLAIN, "publish.recipients=newsletter = 1")
    customers = with_users(shop, ("u", "DE", 0))
    with pytest.raises(ConfigError, match=r"publish\.recipients: names no user"):
        shop.publish(DAY, *PLAIN, customers, "publish.recipients=newsletter = 1")
    assert not shop.context().tables.exists("email_recommendations")


ARMS = "publish.arms={control: 0.25, cf: 0.25, without_llm: 0.25, served: 0.25}"
SHARES = {"control": 0.25, "cf": 0.25, "without_llm": 0.25, "served": 0.25}


def scored_both_ways(shop: Shop, users: list[str]) -> None:
    """Score lists that the CF model orders from the end, and the blend with the third item first."""
    shop.score(DAY, {user: FIRST[:6] for user in users})
    path = shop.context().tables.path("recommendations")
    rows = shop.spark.read.format("delta").load(path)
    rows = rows.withColumn("cf_score", F.col("rank").cast("double"))
    first = F.when(F.col("rank") == 3, 9.0).otherwise(-F.col("rank").cast("double"))
    night = Night(shop.context(), DAY).with_new_run()
    with night.step("score", again=True).recorded(*_inputs(night)) as run:
        run.replace("recommendations", rows.withColumn("score_without_llm", first).drop("run_date"))
        run.figures = {"users": float(len(users))}
        run.bundle_id = shop.bundle_id


def _inputs(night: Night) -> tuple[Any, Any]:
    row = night.latest("score", "done")
    assert row is not None
    return row.input_versions, row.table_ids


def test_every_arm_gets_its_order_and_the_control_group_nothing(shop: Shop) -> None:
    users = [f"u{number}" for number in range(40)]
    scored_both_ways(shop, users)
    counts = shop.publish(DAY, *PLAIN, "publish.email_slots=3", ARMS)
    expected = dict(zip(users, arms_of(users, SHARES, 0), strict=True))
    orders = {"served": [1, 2, 3], "without_llm": [3, 1, 2], "cf": [6, 5, 4]}
    assert shop.shown(DAY) == {user: orders[arm] for user, arm in expected.items() if arm != "control"}
    feeds = shop.context().tables.read_date("feed_recommendations", DAY).collect()
    assert {row["user_id"]: row["arm"] for row in feeds} == expected
    assert all((row["slots"] == []) == (row["arm"] == "control") for row in feeds)
    assert sum(counts[f"arm_{name}"] for name in SHARES) == len(users)
    assert counts["email_users"] == len(users) - counts["arm_control"]


def test_lists_that_an_older_version_scored_have_no_arm_without_the_llm(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST})
    with pytest.raises(InputError, match=r"rows without score_without_llm.*run `allmrec score --run-date"):
        shop.publish(DAY, *PLAIN, ARMS)
    shop.publish(DAY, *PLAIN, "publish.arms={served: 1.0}")
    assert shop.shown(DAY) == {"u": FIRST[:5]}


def test_without_arms_no_user_has_one(shop: Shop) -> None:
    shop.score(DAY, {"u": FIRST})
    shop.publish(DAY, *PLAIN)
    for name in ("email_recommendations", "feed_recommendations"):
        assert [row["arm"] for row in shop.context().tables.read_date(name, DAY).collect()] == [None]

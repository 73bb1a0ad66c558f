"""Rules in the configuration: forms, dates, slots and contradictions are refused before Spark starts."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from allmrec.config import Config, RuleConfig, load
from allmrec.errors import ConfigError

EXCLUDE = "{name: gifts, kind: exclude, where: \"brand = 'Gift'\"}"


def with_rules(folder: Path, *rules: str, more: str = "") -> Config:
    """The configuration of a YAML file with these rules."""
    path = folder / "shop.yaml"
    lines = ["publish:", *([f"  {more}"] if more else []), "  rules:", *(f"    - {rule}" for rule in rules)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return load([path])


def test_rules_of_every_kind_are_read_from_yaml(tmp_path: Path) -> None:
    config = with_rules(
        tmp_path,
        EXCLUDE,
        "{name: adult, kind: hide, where: \"category = 'wine'\", users: age < 18}",
        "{name: old, kind: bury, where: year < 2020}",
        "{name: summer, kind: boost, where: is_summer, share: 0.4, last_date: 2026-06-30}",
        "{name: lamp, kind: pin, item: 0012, slot: 2, users: \"country = 'DE'\", first_date: 2026-06-01}",
    )
    kinds = [rule.kind for rule in config.publish.rules]
    assert kinds == ["exclude", "hide", "bury", "boost", "pin"]
    assert config.publish.rules[3].last_date == date(2026, 6, 30)
    assert config.publish.rules[4].item == "0012", "an id keeps its zeros"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (
            "{name: a, kind: drop, where: x}",
            r'rules\[0\]\.kind: "drop", expected one of exclude, hide, bury, boost, pin',
        ),
        (
            "{name: a, kind: exclude, were: x}",
            r"rules\[0\]\.were: unknown key, expected one of first_date, item",
        ),
        ("{kind: exclude, where: x}", r"rules\[0\]\.name: missing, expected a text"),
        (
            "{name: a, kind: exclude, where: x, last_date: 30.6.2026}",
            r'last_date: "30\.6\.2026", expected a date such as 2026-06-01',
        ),
        ("{name: a, kind: boost, where: x, share: 2}", r"share: 2, expected a number from 0 to 1"),
        ("{name: a, kind: boost, where: x}", r"rule a: kind boost without share, expected where and share"),
        ("{name: a, kind: hide, where: x}", r"rule a: kind hide without users"),
        ("{name: a, kind: pin, item: i, slot: 0}", r"slot: 0, expected an integer ≥ 1"),
        (
            "{name: a, kind: pin, item: i, slot: 6}",
            r"rule a: slot 6, expected at most publish\.email_slots \(5\)",
        ),
        (
            "{name: a, kind: bury, where: x, slot: 1}",
            r"rule a: slot beside kind bury, expected where; remove slot",
        ),
        (
            "{name: a, kind: bury, where: x, first_date: 2026-06-02, last_date: 2026-06-01}",
            "rule a: first_date 2026-06-02 after last_date 2026-06-01",
        ),
        ("{name: a, kind: bury, where: rand() < 0.5}", "rule a: where: .* contains rand"),
        ("{name: a, kind: bury, where: day < current_date}", "contains current_date"),
        ("{name: a, kind: bury, where: id IN (SELECT 1)}", "contains SELECT"),
    ],
)
def test_a_rule_that_cannot_be_right_is_named_with_what_was_expected(
    tmp_path: Path, rule: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        with_rules(tmp_path, rule)


def test_a_text_in_a_condition_may_contain_any_word(tmp_path: Path) -> None:
    where = "title = 'select now' OR `rand` = \\\"uuid\\\""
    assert with_rules(tmp_path, f'{{name: a, kind: bury, where: "{where}"}}').publish.rules


def test_a_condition_on_recipients_must_give_the_same_users_again() -> None:
    assert load([], ["publish.recipients=newsletter"]).publish.recipients == "newsletter"
    with pytest.raises(ConfigError, match=r"publish\.recipients: rand\(\) < 0\.5, which contains rand"):
        load([], ["publish.recipients=rand() < 0.5"])


PIN = "{{name: {name}, kind: pin, item: {item}, slot: {slot}{more}}}"


def pin(name: str, item: str = "i", slot: int = 1, more: str = "") -> str:
    return PIN.format(name=name, item=item, slot=slot, more=f", {more}" if more else "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pin("a", "i", 1), pin("b", "j", 1)),
        (pin("a", "i", 1), pin("b", "i", 2)),
        (pin("a", "i", 1), pin("b", "j", 1, "users: vip")),
        (pin("a", "i", 1, "users: vip"), pin("b", "j", 1, "users: vip")),
        (pin("a", "i", 1, "last_date: 2026-06-02"), pin("b", "j", 1, "first_date: 2026-06-02")),
    ],
)
def test_two_pins_of_one_slot_or_item_for_the_same_users_are_refused(
    tmp_path: Path, one: str, other: str
) -> None:
    with pytest.raises(ConfigError, match=r"rules a and b: pin item .* for the same users on the same dates"):
        with_rules(tmp_path, one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pin("a", "i", 1), pin("b", "j", 2)),
        (pin("a", "i", 1, "last_date: 2026-06-01"), pin("b", "j", 1, "first_date: 2026-06-02")),
        (pin("a", "i", 1, "users: vip"), pin("b", "j", 1, "users: NOT vip")),
    ],
)
def test_pins_of_other_slots_dates_or_users_are_accepted(tmp_path: Path, one: str, other: str) -> None:
    assert len(with_rules(tmp_path, one, other).publish.rules) == 2


def test_boosts_of_one_date_have_at_most_all_slots(tmp_path: Path) -> None:
    june = "{name: june, kind: boost, where: x, share: 0.7, first_date: 2026-06-01, last_date: 2026-06-30}"
    july = "{name: july, kind: boost, where: x, share: 0.7, first_date: 2026-07-01}"
    late = "{name: late, kind: boost, where: y, share: 0.4, first_date: 2026-06-30}"
    assert len(with_rules(tmp_path, june, july).publish.rules) == 2
    with pytest.raises(ConfigError, match=r"rules june, late: shares of 1\.1 together, expected at most 1"):
        with_rules(tmp_path, june, late)


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rule gifts: two of this name"):
        with_rules(tmp_path, EXCLUDE, EXCLUDE)


def test_a_rule_applies_from_its_first_to_its_last_date() -> None:
    rule = RuleConfig(
        name="a", kind="bury", where="x", first_date=date(2026, 6, 2), last_date=date(2026, 6, 3)
    )
    assert [rule.is_in_force(date(2026, 6, day)) for day in (1, 2, 3, 4)] == [False, True, True, False]
    always = RuleConfig(name="b", kind="bury", where="x")
    assert always.is_in_force(date(1970, 1, 2))

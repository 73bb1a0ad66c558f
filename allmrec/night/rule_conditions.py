"""Conditions of rules on the tables of items and users: who and what they name, and their mistakes."""

from __future__ import annotations

from itertools import product

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from allmrec.config.sections.rule_settings import RuleConfig, contradiction, rival_pins
from allmrec.data import items as catalogue
from allmrec.data.rejection import split_rejected
from allmrec.errors import ConfigError
from allmrec.night.rules_in_force import InForce
from allmrec.runtime.inputs import Inputs, source_of
from allmrec.spark.troubles import first_line

RECIPIENTS = "publish.recipients"


def items_named(rules: InForce, inputs: Inputs) -> DataFrame:
    """Return (item_id, available, met), the items that a rule names: `met` has the names of these rules.

    A condition may use our columns of items and all others of the shop's table. Raises ConfigError where one
    does not fit.
    """
    rows = catalogue.tagged_items(inputs.whole("items"))
    good, _ = split_rejected(rows, "items", (*catalogue.COLUMNS, "item"))
    frame = _with_own_columns(good, catalogue.COLUMNS)
    place = source_of(inputs.context, "items").place
    conditions = {
        rule.name: _parsed(frame, f"rule {rule.name}: where", rule.where, place)
        if rule.where
        else F.col("item_id") == F.lit(rule.item)
        for rule in rules.rules
    }
    met = frame.select("item_id", "available", _names_of(conditions).alias("met"))
    return met.where(F.size("met") > 0)


def users_named(rules: InForce, inputs: Inputs) -> DataFrame:
    """Return (user_id, met) of the table of users: `met` has the names of the rules that name the user.

    `RECIPIENTS` is the name of the condition on recipients, which every row of the user meets. Raises
    ConfigError where a condition does not fit.
    """
    rows = inputs.whole("users")
    good = rows.where("problem IS NULL") if "problem" in rows.columns else rows
    frame = _with_own_columns(good.select("user_id", "item"), ("user_id",))
    place = source_of(inputs.context, "users").place
    conditions = {
        rule.name: _parsed(frame, f"rule {rule.name}: users", rule.users, place)
        for rule in rules.rules
        if rule.users
    }
    is_recipient = F.lit(True)
    if rules.recipients is not None:
        is_recipient = _parsed(frame, RECIPIENTS, rules.recipients, place)
    met = frame.select("user_id", _names_of(conditions).alias("met"), is_recipient.alias("is_recipient"))
    by_user = met.groupBy("user_id").agg(
        F.array_distinct(F.flatten(F.collect_list("met"))).alias("met"),
        F.min("is_recipient").alias("is_recipient"),
    )
    recipient = F.when(F.col("is_recipient"), _texts([RECIPIENTS])).otherwise(_texts([]))
    return by_user.select("user_id", F.concat("met", recipient).alias("met"))


def require_effect(rules: InForce, items: DataFrame | None, users: DataFrame | None) -> dict[str, int]:
    """Return the number of items that each rule names, as `rule_items_<name>`.

    `items` and `users` are those of `items_named` and `users_named`. Raises ConfigError where a rule names no
    item or no user, where a pinned item is excluded, hidden or not available, and where two rules pin one
    slot for the same users.
    """
    counts = {} if items is None else _counts(items, [rule.name for rule in rules.rules])
    for name, count in counts.items():
        if not count:
            raise ConfigError(f"rule {name}: names no item of the catalogue, expected one; correct it")
    ids = [pin.item for pin in rules.pins()]
    pinned = [] if items is None else items.where(F.col("item_id").isin(ids)).collect()
    by_id = {row["item_id"]: row for row in pinned}
    for pin in rules.pins():
        _require_free(pin, by_id[pin.item], rules.named("exclude"))
    if users is not None:
        _require_users(rules, users, by_id)
    return {f"rule_items_{name}": count for name, count in counts.items()}


def _require_free(pin: RuleConfig, item: Row, excluding: list[str]) -> None:
    """Raise ConfigError where a pinned item is not available or excluded."""
    by = [name for name in excluding if name in item["met"]]
    if by:
        raise ConfigError(
            f"rules {pin.name} and {by[0]}: pin and exclude item {pin.item}, expected one of both; remove one"
        )
    if not item["available"]:
        raise ConfigError(
            f"rule {pin.name}: item {pin.item} is not available, expected an available item; remove the rule"
        )


def _require_users(rules: InForce, users: DataFrame, by_id: dict[str | None, Row]) -> None:
    """Raise ConfigError where a condition names nobody, or rules contradict each other for some user."""
    conditional = [rule.name for rule in rules.rules if rule.users]
    names = [*conditional, *([RECIPIENTS] if rules.recipients is not None else [])]
    for name, count in _counts(users, names).items():
        if not count:
            said = name if name == RECIPIENTS else f"rule {name}: users"
            raise ConfigError(f"{said}: names no user of the table users, expected one or more; correct it")
    hides = [rule for rule in rules.rules if rule.kind == "hide"]
    pairs = [(one, other, contradiction(one, other)) for one, other in rival_pins(rules.rules)]
    for pin, hide in product(rules.pins(), hides):
        if hide.name in by_id[pin.item]["met"]:
            told = f"rules {pin.name} and {hide.name}: pin and hide item {pin.item} for the same users"
            pairs.append((pin, hide, f"{told}, expected one of both; change the users of one of them"))
    for one, other, told in pairs:
        both = [rule.name for rule in (one, other) if rule.users]
        meets_both = F.size(F.array_intersect("met", _texts(both))) == len(both)
        if not users.where(meets_both).isEmpty():
            raise ConfigError(told)


def _counts(frame: DataFrame, names: list[str]) -> dict[str, int]:
    """Return in how many rows each name is in `met`."""
    if not names:
        return {}
    counted = frame.agg(*(F.count_if(F.array_contains("met", name)) for name in names)).first()
    assert counted is not None
    return dict(zip(names, counted, strict=True))


def _with_own_columns(frame: DataFrame, ours: tuple[str, ...]) -> DataFrame:
    """Return our columns and those of the struct `item` that have other names."""
    kind = frame.select("item.*").columns
    known = {name.lower() for name in ours}
    others = [F.col("item")[name].alias(name) for name in kind if name.lower() not in known]
    return frame.select(*ours, *others)


def _parsed(frame: DataFrame, name: str, condition: str | None, place: str) -> Column:
    """Return a condition as a column without nulls. Raises ConfigError where it does not fit the frame."""
    text = str(condition)
    try:
        frame.where(text)
    except PySparkException as error:
        raise ConfigError(
            f"{name}: {text}: {first_line(error)}; expected a condition on columns of {place}: "
            f"{', '.join(frame.columns[:40])}"
        ) from error
    return F.coalesce(F.expr(text), F.lit(False))


def _names_of(conditions: dict[str, Column]) -> Column:
    """Return the names of the conditions that hold, array<string>."""
    named = [F.when(condition, F.lit(name)) for name, condition in conditions.items()]
    return F.array_compact(F.array(*named)).cast("array<string>")


def _texts(names: list[str]) -> Column:
    """Return names as a constant array<string>."""
    return F.array(*map(F.lit, names)).cast("array<string>")

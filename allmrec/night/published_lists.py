"""Lists to publish: a user's available items by rank, with what slots need, and the slots of both tables."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.night.arms import is_control
from allmrec.night.bought import Bought
from allmrec.night.rule_conditions import RECIPIENTS
from allmrec.night.rules_in_force import InForce
from allmrec.night.shown import Shown
from allmrec.night.slot_choice import REASON
from allmrec.runtime.inputs import Inputs

CATEGORY = "category"
"""The name of the leaf category in `publish.max_per`. Other names are columns of the table of items."""
SLOT = ("rank", "item_id", "title", "score", "probability", "source", "item")
"""The fields of a slot before its reason (`slot_choice.REASON`) and its rule."""
_ELEMENT = (*SLOT, "rule", "leaf", "caps", "in_email", "in_feed", "met", "slot", "arm_scores")
"""The fields of an item of a list.

`met` has the names of the rules that name the item, and `slot` is that of a pinned item, else 0.
`arm_scores` has the scores of `arms.scored_for_arms`.
"""


def items_to_publish(inputs: Inputs, rules: InForce, named: DataFrame | None) -> DataFrame:
    """Return the available items that no rule excludes, with `title` and what slots need.

    `item` has the columns to show, `leaf` the leaf category, null without one, and `caps` the values of the
    columns that `publish.max_per` names, as texts in its order. `met` has the names of the rules that name
    the item, and `rule` the one that boosts or buries it. `named` are the items that rules name
    (`rule_conditions.items_named`).
    """
    settings = inputs.context.config.publish
    capped: Sequence[str] = list(settings.max_per)
    items = inputs.items_to_show(settings.item_columns)
    items = items.where("available").select("item_id", "title", "item", _leaf().alias("leaf"))
    others = [name for name in capped if name != CATEGORY]
    labels = {name: f"cap_{number}" for number, name in enumerate(others)} | {CATEGORY: "leaf"}
    if others:
        own = inputs.item_columns(others).toDF("item_id", *(labels[name] for name in others))
        items = items.join(own, "item_id", "left")
    caps = F.array(*(F.col(labels[name]) for name in capped)).cast("array<string>")
    items = items.select("item_id", "title", "item", "leaf", caps.alias("caps"))
    if named is None:
        return items.withColumns({"met": texts([]), "rule": F.lit(None).cast("string")})
    items = items.join(named.select("item_id", "met"), "item_id", "left")
    items = items.withColumn("met", F.coalesce("met", texts([])))
    items = items.where(~F.arrays_overlap("met", texts(rules.named("exclude"))))
    ordering = texts(rules.named("boost", "bury"))
    return items.withColumn("rule", F.get(F.array_intersect(ordering, F.col("met")), F.lit(0)))


def _leaf() -> Column:
    """Return the leaf category; null without categories."""
    return F.when(F.size("categories") > 0, F.element_at("categories", -1))


def with_shown(rows: DataFrame, shown: Shown, name: str) -> DataFrame:
    """Return the rows with a column `name`: 0 for an item that was not shown lately (`Shown.items`)."""
    found = shown.items()
    if found is None:
        return rows.withColumn(name, F.lit(0))
    found = found.withColumnRenamed("shown", name)
    return rows.join(found, ["user_id", "item_id"], "left").fillna(0, [name])


def lists_of(rows: DataFrame) -> DataFrame:
    """Return (user_id, items) with each user's rows by rank."""
    element = F.struct(*_ELEMENT)
    rows = rows.withColumn("slot", F.lit(0))
    return rows.groupBy("user_id").agg(F.sort_array(F.collect_list(element)).alias("items"))


def with_bought_kinds(lists: DataFrame, bought: Bought, inputs: Inputs) -> DataFrame:
    """Return the lists with `kinds`, the leaf categories of what each user bought lately."""
    nothing = texts([])
    items = bought.items()
    if items is None:
        return lists.withColumn("kinds", nothing)
    leaves = inputs.catalogue()[0].select("item_id", _leaf().alias("leaf"))
    kinds = items.join(leaves, "item_id").groupBy("user_id").agg(F.collect_set("leaf").alias("kinds"))
    return lists.join(kinds, "user_id", "left").withColumn("kinds", F.coalesce("kinds", nothing))


def with_rules_of_users(
    lists: DataFrame, rules: InForce, items: DataFrame, users: DataFrame | None
) -> DataFrame:
    """Return the lists without hidden items, with pinned ones, and with `is_mailed`.

    A user without any item left has no list. `lists` has `arm`, `items` are `items_to_publish`, and `users`
    those that rules name (`rule_conditions.users_named`).
    """
    if users is None:
        lists = lists.withColumn("user_met", texts([]))
    else:
        lists = lists.join(users.withColumnRenamed("met", "user_met"), "user_id", "left")
        lists = lists.withColumn("user_met", F.coalesce("user_met", texts([])))
    hides = rules.named("hide")
    if hides:
        lists = lists.withColumn("items", _without_hidden(hides)).where(F.size("items") > 0)
    if rules.pins():
        lists = _with_pins(lists, rules, items)
    is_recipient = F.lit(True)
    if rules.recipients is not None:
        is_recipient = F.array_contains("user_met", RECIPIENTS)
    return lists.withColumn("is_mailed", is_recipient & ~is_control()).drop("user_met")


def _without_hidden(hides: list[str]) -> Column:
    """Return a user's items without those that a rule hides from the user."""
    own = F.array_intersect(F.col("user_met"), texts(hides))
    return F.filter("items", lambda item: ~F.arrays_overlap(item["met"], own))


def _with_pins(lists: DataFrame, rules: InForce, items: DataFrame) -> DataFrame:
    """Return the lists with `slot` and `rule` of pinned items; those that a list lacks are at its end."""
    rows = [(pin.item, pin.name, pin.slot, pin.users is None) for pin in rules.pins()]
    table = items.sparkSession.createDataFrame(
        rows, "item_id string, rule string, slot int, is_for_all boolean"
    )
    none = {name: F.lit(None).cast("double") for name in ("score", "probability")}
    none |= {"arm_scores": F.lit(None).cast("array<double>")}
    none |= {"rank": F.lit(None).cast("int"), "source": F.lit(None).cast("string")}
    pinned = items.drop("rule").join(table, "item_id").withColumns(none)
    pinned = pinned.withColumns({"in_email": F.lit(0), "in_feed": F.lit(0)})
    pin = F.struct("rule", "is_for_all", F.struct(*_ELEMENT).alias("element"))
    lists = lists.crossJoin(F.broadcast(pinned.agg(F.sort_array(F.collect_list(pin)).alias("pins"))))
    own = F.filter("pins", lambda pin: pin["is_for_all"] | F.array_contains(F.col("user_met"), pin["rule"]))
    lists = lists.withColumn("pins", F.transform(own, lambda pin: pin["element"]))
    ids = F.col("items.item_id")
    lacking = F.filter("pins", lambda pin: ~F.array_contains(ids, pin["item_id"]))
    return lists.withColumn("items", F.concat(F.transform("items", _as_pinned), lacking)).drop("pins")


def _as_pinned(item: Column) -> Column:
    """Return an item of a list with the slot and the name of the user's pin of it, if there is one."""
    pin = F.get(F.filter("pins", lambda pin: pin["item_id"] == item["item_id"]), F.lit(0))
    item = item.withField("rule", F.coalesce(pin["rule"], item["rule"]))
    return item.withField("slot", F.coalesce(pin["slot"], item["slot"]))


def is_buried(item: Column, rules: InForce) -> Column:
    """Return whether a rule buries an item of a list."""
    return F.arrays_overlap(item["met"], texts(rules.named("bury")))


def email_slots() -> Column:
    """Return the slots of the e-mail."""
    return F.transform("choice.places", _slot)


def feed_slots(num_slots: int, rules: InForce) -> Column:
    """Return the best `num_slots` items in the order of the list, none in the arm `control`.

    Those that a feed showed lately come after the others, then those like bought ones, and buried ones after
    all. A pinned item that the user's recommendations lack is in the e-mail only.
    """

    def key(item: Column, place: Column) -> Column:
        bought = F.get("choice.bought", place)
        return F.struct(is_buried(item, rules), bought, item["in_feed"], place.alias("place"))

    is_own = F.transform("items", lambda item: item["rank"].isNotNull())
    by_place = F.filter(F.transform("items", key), lambda one: F.get(is_own, one["place"]))
    length = F.when(is_control(), F.lit(0)).otherwise(F.lit(num_slots))
    best = F.slice(F.sort_array(by_place), F.lit(1), length)
    return F.transform(best, lambda one: _slot(one["place"]))


def texts(names: Sequence[str]) -> Column:
    """Return texts as a constant array<string>."""
    return F.array(*map(F.lit, names)).cast("array<string>")


def _slot(place: Column) -> Column:
    """Return the item at a place of a list, from 0, as a slot."""
    item = F.get("items", place)
    own = [item[name].alias(name) for name in SLOT]
    reason = [F.get(F.col(f"choice.{name}"), place).alias(name) for name in REASON]
    return F.struct(*own, *reason, item["rule"].alias("rule"))

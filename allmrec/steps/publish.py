"""recommendations, items → email_recommendations and feed_recommendations of a run_date."""

from __future__ import annotations

from collections.abc import Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.bundle import verify_bundle
from allmrec.night import gates
from allmrec.night.bought import Bought
from allmrec.night.shown import Shown
from allmrec.night.slot_choice import REASON, chooser
from allmrec.night.waves import STAGED
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Finished, Night
from allmrec.runtime.shipping import ship
from allmrec.spark.troubles import first_line
from allmrec.tables.staging import Staging, staging_of_date
from allmrec.tables.views import LATEST, create_latest_view

CATEGORY = "category"
"""The name of the leaf category in `publish.max_per`. Other names are columns of the table of items."""
SLOT = ("rank", "item_id", "title", "score", "probability", "source", "item")
"""The fields of a slot before its reason (`slot_choice.REASON`)."""


def run_publish(night: Night) -> None:
    """Write both tables of the night's date, one commit each.

    Titles, availability and the columns of `publish.max_per` and `publish.item_columns` are those of the
    newest catalogue (of a past date: at its end), whatever version the night read. Raises, before it writes,
    InputError where the date has no sequences or is not scored, ConfigError where a column is missing,
    GateError where too few of the recommended items are still available, or another rule of `gates` is
    broken.
    """
    sequences = night.done("sequences")
    score = night.done("score")
    settings = night.context.config.publish
    in_emails = Shown.before(night, "email_recommendations", settings.not_again_days)
    in_feeds = Shown.before(night, "feed_recommendations", settings.feed_not_again_days)
    step = night.step(
        "publish",
        after=score,
        sequences=sequences.row.fingerprint,
        shown=[in_emails.marks(), in_feeds.marks()],
    )
    if step.is_there():
        delete_staged(night)
        name_latest(night.context)
        return
    current = Inputs.of_step(score).with_items_of(night.run_date)
    versions = {**current.versions, **in_emails.versions(), **in_feeds.versions()}
    with step.recorded(versions, current.table_ids) as run:
        with run.part("choose", "join titles, drop unavailable items, choose the slots of e-mails"):
            rows = available_recommendations(current, score.read("recommendations"), list(settings.max_per))
            rows = with_shown(rows, in_emails, "in_email")
            rows = with_shown(rows, in_feeds, "in_feed")
            bought = Bought(sequences.read("user_sequences"), night.run_date, settings.not_like_last_days)
            lists = with_bought_kinds(bought.with_histories(lists_of(rows)), bought, current)
            lists = run.keep(with_choice(lists, score))
            filled = gates.FilledSlots.of(int(score.row.figures["users"]), lists)
            run.counts = filled.counts()
            gates.check(run, gates.measure("email_recommendations", filled))
        with run.part("write", "replace the date in one commit each"):
            run.replace("email_recommendations", lists.select("user_id", email_slots().alias("slots")))
            run.replace(
                "feed_recommendations",
                lists.select("user_id", feed_slots(settings.feed_slots).alias("slots")),
            )
        delete_staged(night)
        run.bundle_id = score.row.bundle_id
        run.figures = dict(score.row.figures)
    name_latest(night.context)


def name_latest(context: Context) -> None:
    """Create the view of the newest e-mails in the catalogue. A failure is a warning: they are published."""
    try:
        create_latest_view(context.tables)
    except (PySparkException, Py4JJavaError) as error:
        context.warn_once(
            f"{context.tables.schema_name}.{LATEST}: {first_line(error)}; expected the right to create a "
            "view of this name; grant it, or drop the table that has the name"
        )


def delete_staged(night: Night) -> None:
    """Delete the staged rows of a date that is not at work."""
    score = night.latest("score")
    at_work = night.newer_run() is not None or score is None or score.status == "started"
    if not at_work:
        folder = staging_of_date(night.context.tables.root, night.run_date)
        Staging(night.context.spark, folder, STAGED).delete()


def available_recommendations(inputs: Inputs, recommended: DataFrame, capped: Sequence[str]) -> DataFrame:
    """Return the rows of `recommendations` with available items, titles and `item`, the columns to show.

    `leaf` is the leaf category, null without one. The column `caps` has the values of the columns that
    `publish.max_per` names, as texts in its order.
    """
    items = inputs.items_to_show(inputs.context.config.publish.item_columns)
    items = items.where("available").select("item_id", "title", "item", _leaf().alias("leaf"))
    others = [name for name in capped if name != CATEGORY]
    labels = {name: f"cap_{number}" for number, name in enumerate(others)} | {CATEGORY: "leaf"}
    if others:
        own = inputs.item_columns(others).toDF("item_id", *(labels[name] for name in others))
        items = items.join(own, "item_id", "left")
    caps = F.array(*(F.col(labels[name]) for name in capped)).cast("array<string>")
    return recommended.join(items.select("item_id", "title", "item", "leaf", caps.alias("caps")), "item_id")


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
    fields = (*SLOT, "leaf", "caps", "in_email", "in_feed")
    return rows.groupBy("user_id").agg(F.sort_array(F.collect_list(F.struct(*fields))).alias("items"))


def with_bought_kinds(lists: DataFrame, bought: Bought, inputs: Inputs) -> DataFrame:
    """Return the lists with `kinds`, the leaf categories of what each user bought lately."""
    nothing = F.array().cast("array<string>")
    items = bought.items()
    if items is None:
        return lists.withColumn("kinds", nothing)
    leaves = inputs.catalogue()[0].select("item_id", _leaf().alias("leaf"))
    kinds = items.join(leaves, "item_id").groupBy("user_id").agg(F.collect_set("leaf").alias("kinds"))
    return lists.join(kinds, "user_id", "left").withColumn("kinds", F.coalesce("kinds", nothing))


def with_choice(lists: DataFrame, score: Finished) -> DataFrame:
    """Return the lists with `choice`, each user's slots and reasons (`slot_choice.CHOICE`)."""
    context: Context = score.night.context
    settings = context.config.publish
    bundle_id = str(score.row.bundle_id)
    folder = bundle_store.fetch_bundle(context, bundle_id)
    verify_bundle(folder)
    ship(context.spark.sparkContext, folder, bundle_id)
    items = [F.col(f"items.{name}") for name in ("item_id", "title", "score", "in_email")]
    is_popular = F.transform("items.source", lambda source: source == "popular")
    is_bought_kind = F.transform(
        "items.leaf", lambda leaf: F.coalesce(F.array_contains("kinds", leaf), F.lit(False))
    )
    caps = [_cap(number) for number in range(len(settings.max_per))]
    choose = chooser(bundle_id, settings)
    return lists.withColumn(
        "choice", choose(*items, is_popular, is_bought_kind, F.col("history"), F.col("is_recent"), *caps)
    )


def _cap(number: int) -> Column:
    """Return the values of one column of `publish.max_per`, one per item of a list."""
    return F.transform("items.caps", lambda caps: F.get(caps, number))


def email_slots() -> Column:
    """Return the slots of the e-mail."""
    return F.transform("choice.places", _slot)


def feed_slots(num_slots: int) -> Column:
    """Return the best `num_slots` items by rank: first the others, then those that a feed showed lately.

    Items like bought ones are last.
    """
    by_place = F.transform(
        "items",
        lambda item, place: F.struct(F.get("choice.bought", place), item["in_feed"], place.alias("place")),
    )
    best = F.slice(F.sort_array(by_place), 1, num_slots)
    return F.transform(best, lambda one: _slot(one["place"]))


def _slot(place: Column) -> Column:
    """Return the item at a place of a list, from 0, as a slot."""
    item = F.get("items", place)
    own = [item[name].alias(name) for name in SLOT]
    return F.struct(*own, *(F.get(F.col(f"choice.{name}"), place).alias(name) for name in REASON))

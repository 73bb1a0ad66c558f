"""recommendations, items → email_recommendations and feed_recommendations of a run_date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from allmrec.bundle import verify_bundle
from allmrec.errors import ConfigError
from allmrec.night import gates
from allmrec.night.arms import count_arms, relevance, scored_for_arms, with_arms
from allmrec.night.bought import Bought
from allmrec.night.published_lists import (
    email_slots,
    feed_slots,
    is_buried,
    items_to_publish,
    lists_of,
    with_bought_kinds,
    with_rules_of_users,
    with_shown,
)
from allmrec.night.rule_conditions import items_named, require_effect, users_named
from allmrec.night.rules_in_force import InForce
from allmrec.night.shown import Shown
from allmrec.night.slot_choice import chooser
from allmrec.night.waves import STAGED
from allmrec.runtime import bundle_store
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs, source_of
from allmrec.runtime.night import Finished, Night
from allmrec.runtime.shipping import ship
from allmrec.spark.troubles import first_line
from allmrec.tables.staging import Staging, staging_of_date
from allmrec.tables.views import LATEST, create_latest_view


@dataclass(frozen=True)
class Origins:
    """The steps, rules and earlier nights that decide what a date publishes."""

    sequences: Finished
    score: Finished
    rules: InForce
    in_emails: Shown
    in_feeds: Shown

    @classmethod
    def of(cls, night: Night) -> Origins:
        """Return those of a date. Raises InputError where it has no sequences or is not scored."""
        settings = night.context.config.publish
        return cls(
            night.done("sequences"),
            night.done("score"),
            InForce.of(night),
            Shown.before(night, "email_recommendations", settings.not_again_days),
            Shown.before(night, "feed_recommendations", settings.feed_not_again_days),
        )

    def marks(self) -> dict[str, Any]:
        """Return what of them decides rows beside the scoring, for the fingerprint."""
        shown = [self.in_emails.marks(), self.in_feeds.marks()]
        return {"sequences": self.sequences.row.fingerprint, "shown": shown, **self.rules.marks()}

    def versions(self) -> dict[str, int]:
        """Return the versions that are read beside the inputs, for `runs.input_versions`."""
        return {**self.in_emails.versions(), **self.in_feeds.versions(), **self.rules.versions}

    def lists(self, current: Inputs, named: DataFrame | None, users: DataFrame | None) -> DataFrame:
        """Return the users' lists to publish, with all that the choice of slots needs.

        `named` and `users` are the items and users that rules name.
        """
        night = self.score.night
        settings = night.context.config.publish
        items = items_to_publish(current, self.rules, named)
        rows = with_shown(scored_for_arms(self.score).join(items, "item_id"), self.in_emails, "in_email")
        lists = with_arms(lists_of(with_shown(rows, self.in_feeds, "in_feed")), settings)
        lists = with_rules_of_users(lists, self.rules, items, users)
        sequences = self.sequences.read("user_sequences")
        bought = Bought(sequences, night.run_date, settings.not_like_last_days)
        return with_bought_kinds(bought.with_histories(lists), bought, current)


def run_publish(night: Night) -> None:
    """Write both tables of the night's date, one commit each.

    Titles, availability, the columns of `publish.max_per` and `publish.item_columns`, and those that rules
    read, are those of the newest catalogue and users (of a past date: at its end), whatever version the night
    read. Raises, before it writes, InputError where the date has no sequences or is not scored, ConfigError
    where a column is missing or a rule does not fit the tables, GateError where too few of the recommended
    items are still available, or another rule of `gates` is broken.
    """
    settings = night.context.config.publish
    origins = Origins.of(night)
    score = origins.score
    rules = origins.rules
    step = night.step("publish", after=score, **origins.marks())
    if step.is_there():
        delete_staged(night)
        name_latest(night.context)
        return
    current = current_inputs(score, rules)
    with step.recorded({**current.versions, **origins.versions()}, current.table_ids) as run:
        with run.part("rules", "find items and users that rules name"):
            named = run.keep(items_named(rules, current)) if rules.rules else None
            users = run.keep(users_named(rules, current)) if rules.has_user_conditions() else None
            run.counts = require_effect(rules, named, users)
        with run.part("choose", "join titles, drop unavailable items, choose the slots of e-mails"):
            lists = run.keep(with_choice(origins.lists(current, named, users), score, rules))
            filled = gates.FilledSlots.of(int(score.row.figures["users"]), lists)
            run.counts |= filled.counts() | (count_arms(lists) if settings.arms else {})
            gates.check(run, gates.measure("email_recommendations", filled))
        with run.part("write", "replace the date in one commit each"):
            emails = lists.where("is_mailed").select("user_id", email_slots().alias("slots"), "arm")
            run.replace("email_recommendations", emails)
            slots = feed_slots(settings.feed_slots, rules).alias("slots")
            run.replace("feed_recommendations", lists.select("user_id", slots, "arm"))
        delete_staged(night)
        run.bundle_id = score.row.bundle_id
        run.figures = dict(score.row.figures)
    name_latest(night.context)


def current_inputs(score: Finished, rules: InForce) -> Inputs:
    """Return catalogue and, where rules read them, users as they are now (of a past date: at its end).

    Raises ConfigError where rules read users and the table is missing.
    """
    night = score.night
    needs_users = rules.has_user_conditions()
    if needs_users and not source_of(night.context, "users").exists():
        raise ConfigError(
            "publish.recipients or a rule has a condition on users, but there is no table users, expected "
            "one; import users, or set tables.users"
        )
    names = ("items", "users") if needs_users else ("items",)
    return Inputs.of_step(score).with_current(night.run_date, names)


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


def with_choice(lists: DataFrame, score: Finished, rules: InForce) -> DataFrame:
    """Return the lists with `choice`, each user's slots and reasons (`slot_choice.CHOICE`)."""
    context: Context = score.night.context
    settings = context.config.publish
    bundle_id = str(score.row.bundle_id)
    folder = bundle_store.fetch_bundle(context, bundle_id)
    verify_bundle(folder)
    ship(context.spark.sparkContext, folder, bundle_id)
    floors = rules.floors(settings.email_slots)
    boosted = [_boosted(name) for name in floors]
    caps = [_cap(number) for number in range(len(settings.max_per))]
    history = [F.col("history"), F.col("is_recent")]
    choose = chooser(bundle_id, settings, floors)
    return lists.withColumn("choice", choose(*_of_items(rules), *history, *boosted, *caps))


def _of_items(rules: InForce) -> list[Column]:
    """Return the arrays over a list's items that the chooser reads before the history."""
    # A pinned item that the user's recommendations lack has no source.
    is_popular = F.transform("items.source", lambda source: F.coalesce(source == "popular", F.lit(False)))
    is_bought_kind = F.transform(
        "items.leaf", lambda leaf: F.coalesce(F.array_contains("kinds", leaf), F.lit(False))
    )
    buried = F.transform("items", lambda item: is_buried(item, rules))
    ids, titles, shown, pinned = (F.col(f"items.{name}") for name in ("item_id", "title", "in_email", "slot"))
    scores = F.transform("items", relevance)
    return [ids, titles, scores, shown, is_popular, is_bought_kind, pinned, buried]


def _boosted(name: str) -> Column:
    """Return whether a rule names each item of a list."""
    return F.transform("items.met", lambda met: F.array_contains(met, name))


def _cap(number: int) -> Column:
    """Return the values of one column of `publish.max_per`, one per item of a list."""
    return F.transform("items.caps", lambda caps: F.get(caps, number))

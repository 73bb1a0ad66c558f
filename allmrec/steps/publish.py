"""recommendations, items → email_recommendations and feed_recommendations of a run_date."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.night import gates
from allmrec.night.waves import STAGED
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.night import Night
from allmrec.spark.troubles import first_line
from allmrec.tables.staging import Staging, staging_of_date
from allmrec.tables.views import LATEST, create_latest_view


def run_publish(night: Night) -> None:
    """Write both tables of the night's date, one commit each.

    Titles and availability are those of the newest catalogue (of a past date: at its end), whatever version
    the night read. Raises, before it writes, InputError where the date is not scored, GateError where too few
    of the recommended items are still available, ConfigError where `items` lacks a column of
    `publish.item_columns`.
    """
    score = night.done("score")
    step = night.step("publish", after=score)
    if step.is_there():
        delete_staged(night)
        name_latest(night.context)
        return
    config = night.context.config
    current = Inputs.of_step(score).with_items_of(night.run_date)
    with step.recorded(current.versions, current.table_ids) as run:
        with run.part("write", "join titles, drop unavailable items, fill the slots"):
            rows = run.keep(available_recommendations(current, score.read("recommendations")))
            feeds = run.keep(slots(rows, config.publish.feed_slots, None))
            filled = gates.FilledSlots(int(score.row.figures["users"]), feeds.count())
            gates.check(run, gates.measure("email_recommendations", filled))
            emails = slots(rows, config.publish.email_slots, config.publish.max_per_category)
            run.replace("email_recommendations", emails)
            run.replace("feed_recommendations", feeds)
        delete_staged(night)
        run.bundle_id = score.row.bundle_id
        run.counts = {
            f"{name}_users": run.outputs[f"{name}_recommendations"].num_rows for name in ("email", "feed")
        }
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


def available_recommendations(inputs: Inputs, recommended: DataFrame) -> DataFrame:
    """Return the rows of `recommendations` with available items: titles, leaf categories, shown columns."""
    items = inputs.items_to_show(inputs.context.config.publish.item_columns)
    leaf = F.when(F.size("categories") > 0, F.element_at("categories", -1))
    items = items.where("available").select("item_id", "title", leaf.alias("leaf"), "item")
    return recommended.join(items, "item_id", "inner")


def slots(rows: DataFrame, num_slots: int, max_per_category: int | None) -> DataFrame:
    """Return (run_date, user_id, slots) with each user's best `num_slots` rows, by rank.

    With `max_per_category`, further rows of a leaf category are taken only if too few others are left; an
    item without categories is a category of its own.
    """
    surplus = F.lit(False)
    if max_per_category is not None:
        category = F.coalesce("leaf", F.concat(F.lit("\0"), "item_id"))
        surplus = (
            F.row_number().over(Window.partitionBy("user_id", category).orderBy("rank")) > max_per_category
        )
    by_preference = Window.partitionBy("user_id").orderBy("surplus", "rank")
    rows = rows.withColumn("surplus", surplus).withColumn("position", F.row_number().over(by_preference))
    slot = F.struct("rank", "item_id", "title", "score", "probability", "source", "item")
    chosen = rows.where(F.col("position") <= num_slots).groupBy("run_date", "user_id")
    return chosen.agg(F.sort_array(F.collect_list(slot)).alias("slots"))

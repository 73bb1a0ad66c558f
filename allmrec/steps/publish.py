"""recommendations, items → email_recommendations and feed_recommendations of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.config import fingerprint
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.runs import already_there, finished, recorded


def run_publish(context: Context, run_date: date, inputs: Inputs | None = None) -> None:
    """Write both tables of run_date, one commit each; raises InputError where the date is not scored.

    Titles and availability are those of the catalogue as it stands now, whatever version the night read;
    `inputs` (by default the tables as they stand) only says which versions the run's record names.
    """
    score = finished(context, "score", run_date)
    inputs = inputs or Inputs.newest(context)
    current = inputs.with_newest_items()
    settings, top_k = context.config.publish, context.config.scoring.top_k
    step_fingerprint = fingerprint(
        step="publish",
        run_date=str(run_date),
        settings=settings,
        top_k=top_k,
        items=current.versions["items"],
        previous=score.fingerprint,
    )
    if already_there(context, "publish", run_date, step_fingerprint, "feed_recommendations"):
        return
    with recorded(context, "publish", run_date, step_fingerprint, inputs.versions) as run:
        with run.part("write", "join titles, leave out what cannot be had any more, fill the slots"):
            rows = available_recommendations(current, run_date)
            emails = slots(rows, settings.email_slots, settings.max_per_category)
            context.tables.replace_date("email_recommendations", emails, run_date)
            context.tables.replace_date("feed_recommendations", slots(rows, top_k, None), run_date)
        run.bundle_id = score.bundle_id
        run.counts = {
            f"{name}_users": context.tables.read_date(f"{name}_recommendations", run_date).count()
            for name in ("email", "feed")
        }


def available_recommendations(inputs: Inputs, run_date: date) -> DataFrame:
    """Return the date's recommendations of items that are available, with their title and leaf category."""
    items, _ = inputs.catalogue()
    leaf = F.when(F.size("categories") > 0, F.element_at("categories", -1))
    items = items.where("available").select("item_id", "title", leaf.alias("leaf"))
    return inputs.context.tables.read_date("recommendations", run_date).join(items, "item_id", "inner")


def slots(rows: DataFrame, num_slots: int, max_per_category: int | None) -> DataFrame:
    """Return (run_date, user_id, slots) with each user's best `num_slots` rows, by rank.

    With `max_per_category`, rows beyond that many of one leaf category are taken only when too few others are
    left; an item without categories is a category of its own.
    """
    surplus = F.lit(False)
    if max_per_category is not None:
        category = F.coalesce("leaf", F.concat(F.lit("\0"), "item_id"))
        surplus = (
            F.row_number().over(Window.partitionBy("user_id", category).orderBy("rank")) > max_per_category
        )
    by_preference = Window.partitionBy("user_id").orderBy("surplus", "rank")
    rows = rows.withColumn("surplus", surplus).withColumn("position", F.row_number().over(by_preference))
    slot = F.struct("rank", "item_id", "title", "score", "probability", "source")
    chosen = rows.where(F.col("position") <= num_slots).groupBy("run_date", "user_id")
    return chosen.agg(F.sort_array(F.collect_list(slot)).alias("slots"))

"""recommendations, items → email_recommendations and feed_recommendations of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.runtime import gates
from allmrec.runtime.context import Context
from allmrec.runtime.decides import step_fingerprint
from allmrec.runtime.fencing import newer_run, replace_date
from allmrec.runtime.inputs import Inputs
from allmrec.runtime.runs import already_there, finished, latest, recorded
from allmrec.runtime.waves import STAGED
from allmrec.tables.staging import Staging, staging_of_date


def run_publish(context: Context, run_date: date) -> None:
    """Write both tables of run_date, one commit each.

    Titles and availability are those of the catalogue as it stands now (for a past date: as it stood at its
    end), whatever version the night read. Raises InputError where the date is not scored, GateError where too
    few of the recommended items can still be had: before anything is written.
    """
    score = finished(context, "score", run_date)
    settings, top_k = context.config.publish, context.config.scoring.top_k
    mark = step_fingerprint("publish", context.config, run_date, previous=score.row.fingerprint)
    if already_there(context, "publish", run_date, mark):
        delete_staged(context, run_date)
        return
    current = Inputs.of_record(context, score.row).with_items_of(run_date)
    with recorded(context, "publish", run_date, mark, current.versions, current.table_ids) as run:
        with run.part("write", "join titles, leave out what cannot be had any more, fill the slots"):
            recommended = context.tables.read_date(
                "recommendations", run_date, score.versions["recommendations"]
            )
            rows = run.keep(available_recommendations(current, recommended))
            feeds = run.keep(slots(rows, top_k, None))
            num_served, num_published = int(score.row.figures["users"]), feeds.count()
            gates.check(context, run, run_date, [unpublished(num_served, num_published)])
            emails = slots(rows, settings.email_slots, settings.max_per_category)
            replace_date(context, run, "email_recommendations", emails, run_date)
            replace_date(context, run, "feed_recommendations", feeds, run_date)
        delete_staged(context, run_date)
        run.bundle_id = score.row.bundle_id
        run.counts = {
            f"{name}_users": run.outputs[f"{name}_recommendations"].num_rows for name in ("email", "feed")
        }
        run.figures = dict(score.row.figures)


def delete_staged(context: Context, run_date: date) -> None:
    """Delete what scoring has staged for a date, unless another run is still at it."""
    score = latest(context, "score", run_date)
    at_work = newer_run(context, run_date) is not None or score is None or score.status == "started"
    if not at_work:
        Staging(context.spark, staging_of_date(context.tables.root, run_date), STAGED).delete()


def unpublished(num_served: int, num_published: int) -> gates.Measured:
    """Return what the rule on users without any item left measures."""
    without = num_served - num_published
    words = f"{without:,} of {num_served:,} users have no recommended item that can still be had"
    return gates.Measured("max_unpublished_share", gates.share(without, num_served), words)


def available_recommendations(inputs: Inputs, recommended: DataFrame) -> DataFrame:
    """Return the rows of `recommendations` whose items are available, with their title and leaf category."""
    items, _ = inputs.catalogue()
    leaf = F.when(F.size("categories") > 0, F.element_at("categories", -1))
    items = items.where("available").select("item_id", "title", leaf.alias("leaf"))
    return recommended.join(items, "item_id", "inner")


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

"""recommendations, items → email_recommendations and feed_recommendations of a run_date."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.runtime.context import Context, Stopwatch
from allmrec.runtime.runs import Outcome, done, record


def slots(rows: DataFrame, num_slots: int, max_per_category: int | None) -> DataFrame:
    """Return (run_date, user_id, slots) with the best `num_slots` rows a user, by rank.

    With `max_per_category`, rows beyond that many of one leaf category are taken only when too few others are left; an item without
    categories is a category of its own.
    """
    if max_per_category is not None:
        category = Window.partitionBy(
            "user_id", F.coalesce("leaf", F.concat(F.lit("\0"), "item_id"))
        ).orderBy("rank")
        rows = rows.withColumn("surplus", F.row_number().over(category) > max_per_category)
    else:
        rows = rows.withColumn("surplus", F.lit(False))
    chosen = rows.withColumn(
        "place", F.row_number().over(Window.partitionBy("user_id").orderBy("surplus", "rank"))
    ).where(F.col("place") <= num_slots)
    slot = F.struct("rank", "item_id", "title", "score", "probability", "source")
    return chosen.groupBy("run_date", "user_id").agg(F.sort_array(F.collect_list(slot)).alias("slots"))


def run_publish(context: Context, run_date: date) -> str:
    """Write both tables of run_date, one commit each; return the step's fingerprint. Availability is checked again."""
    before_this = done(context, "score", run_date)
    newest_items = context.tables.version("items")

    def work(watch: Stopwatch) -> Outcome:
        with watch("write", "join titles, leave out what cannot be had any more, fill the slots"):
            items, _ = context.catalogue(newest_items)
            leaf = F.when(F.size("categories") > 0, F.element_at("categories", -1))
            items = items.where("available").select("item_id", "title", leaf.alias("leaf"))
            rows = context.tables.read_date("recommendations", run_date).join(items, "item_id", "inner")
            settings = context.config.publish
            context.tables.replace_date(
                "email_recommendations",
                slots(rows, settings.email_slots, settings.max_per_category),
                run_date,
            )
            context.tables.replace_date(
                "feed_recommendations", slots(rows, context.config.scoring.top_k, None), run_date
            )
        counts = {
            f"{name}_users": context.tables.read_date(f"{name}_recommendations", run_date).count()
            for name in ("email", "feed")
        }
        return Outcome(counts=counts, bundle_id=before_this["bundle_id"])

    _, mark = record(context, "publish", run_date, "feed_recommendations", work, settings=context.config.publish, top_k=context.config.scoring.top_k,
                     items=newest_items, previous=before_this["fingerprint"])  # fmt: skip
    return mark

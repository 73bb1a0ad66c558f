"""What was read becomes the `interactions` and `items` tables; what cannot be right goes to `rejected_rows`. Twice changes nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.importers.kcore import k_core
from allmrec.data.importers.lines import reading
from allmrec.errors import InputError
from allmrec.tables.delta import Tables


def import_into(
    tables: Tables,
    interactions: DataFrame | None,
    items: DataFrame,
    config: ImportingConfig,
    run_id: str = "import",
    now: dt.datetime | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, int]:
    """Merge what a reader of this package returned into the tables and return the counts, also by reason of rejection.

    Everything is read and checked before anything is written. Counts: `interactions_read`, `interactions_good`, `interactions_written`, the
    same of items, `rejected_<table>_<reason>`, `below_min_rating`, `outside_k_core`. Raises InputError where a file breaks off, or holds no
    good row at all; the tables are then as they were.
    """
    now = now or dt.datetime.now(dt.timezone.utc)
    kept: list[DataFrame] = []

    def keep(frame: DataFrame) -> DataFrame:
        kept.append(frame.persist(StorageLevel.MEMORY_AND_DISK))
        return kept[-1]

    try:
        counts: dict[str, int] = {}
        item_rows = keep(catalogue.tagged_items(items))
        with reading("the file of items"):
            _count("items", item_rows, counts, report)
        good_items, rejected = events.split_rejected(item_rows, "items", catalogue.COLUMNS)
        good = None
        if interactions is not None:
            known = good_items.select("item_id")
            if tables.exists("items"):
                known = known.union(tables.read("items").select("item_id"))
            rows = keep(events.tagged(interactions, known, config.rating_range, now).transform(_once_a_key))
            with reading("the file of interactions"):
                _count("interactions", rows, counts, report)
            good, rejected_events = events.split_rejected(rows, "interactions", events.COLUMNS)
            rejected = rejected.union(rejected_events)
            good = _chosen(good, config, counts)
            if config.k_core > 1:
                good_items = good_items.join(keep(good).select("item_id").distinct(), "item_id", "left_semi")
        counts["items_written"] = tables.merge("items", good_items)
        if good is not None:
            counts["interactions_written"] = tables.merge("interactions", good)
        first_seen = {"step": F.lit("import"), "run_id": F.lit(run_id), "first_seen": F.lit(now)}
        tables.create("rejected_rows")
        if any(name.startswith("rejected_") for name in counts):
            tables.merge("rejected_rows", rejected.withColumns(first_seen), update=False)
        return counts
    finally:
        for frame in kept:
            frame.unpersist()


def _once_a_key(rows: DataFrame) -> DataFrame:
    """Reject all but one of good rows with the same user, item and time (the highest rating, then the first event type, stays)."""
    good = F.col("reason").isNull()
    order = Window.partitionBy("user_id", "item_id", "event_time", good).orderBy(
        F.col("rating").desc_nulls_last(), "event_type"
    )
    again = F.when(good & (F.row_number().over(order) > 1), "repeated_key").otherwise(F.col("reason"))
    return rows.withColumn("reason", again)


def _count(table: str, rows: DataFrame, counts: dict[str, int], report: Callable[[str], None]) -> None:
    """Read all rows once, add their counts, and refuse a file without a good row."""
    by_reason = {row["reason"]: row["count"] for row in rows.groupBy("reason").count().collect()}
    good, total = by_reason.pop(None, 0), 0
    total = good + sum(by_reason.values())
    counts[f"{table}_read"], counts[f"{table}_good"] = total, good
    counts.update({f"rejected_{table}_{reason}": number for reason, number in sorted(by_reason.items())})
    if not good:
        why = (
            ", ".join(f"{number} × {reason}" for reason, number in sorted(by_reason.items())) or "it is empty"
        )
        raise InputError(
            f"{table}: no good row among {total} read ({why}); check the files and importing.columns; nothing was imported"
        )
    rejected = ", ".join(f"{number:,} {reason}" for reason, number in sorted(by_reason.items()))
    report(f"{table}: {total:,} rows read, {good:,} good" + (f"; rejected: {rejected}" if rejected else ""))


def _chosen(good: DataFrame, config: ImportingConfig, counts: dict[str, int]) -> DataFrame:
    """Leave out what the settings do not want: low ratings, and what is outside the k-core."""
    total = counts["interactions_good"]
    if config.min_rating is not None:
        good = good.where(F.col("rating").isNull() | (F.col("rating") >= config.min_rating))
        counts["below_min_rating"] = total - (total := good.count())
    if config.k_core > 1:
        good = k_core(good, config.k_core)
        left = good.count()
        counts["outside_k_core"] = total - left
        if not left:
            raise InputError(
                f"importing.k_core: {config.k_core} leaves no interaction of {total}; choose a smaller one; nothing was imported"
            )
    return good

"""Rows of a reader, merged into `interactions`, `items` and `rejected_rows`.

Repeating an import changes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data import interactions as events
from allmrec.data import items as catalogue
from allmrec.data.files.damage import reading
from allmrec.data.importers.kcore import k_core
from allmrec.data.importers.outcome import Outcome, said_of_ids, said_of_times
from allmrec.data.rejection import merge_rejected, reject_repeats, split_rejected
from allmrec.errors import InputError
from allmrec.spark.cached_frames import CachedFrames
from allmrec.tables.delta import Tables
from allmrec.tables.schemas import TABLES


def import_into(
    tables: Tables,
    interactions: DataFrame | None,
    items: DataFrame,
    config: ImportingConfig,
    rating_range: tuple[float, float],
    run_id: str = "import",
    now: dt.datetime | None = None,
    report: Callable[[str], None] = print,
    paths: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Merge a reader's rows into the tables and return the counts.

    All rows are read and checked before any is written. Counts: `interactions_read`, `interactions_good`,
    `interactions_written`, the same of items, `rejected_<table>_<reason>`, `interactions_tied`,
    `below_min_rating`, `outside_k_core`. Ratings outside of `rating_range` are
    rejected. `now` is the time of the import, by default the present; `paths` has
    the file of each table, for messages. Raises InputError where a file cannot be read completely, or has no
    good row; the tables are then unchanged. Raises TableError where a table cannot be read or written.
    """
    now = now or dt.datetime.now(dt.timezone.utc)
    counts: dict[str, int] = {}
    names = {table: (paths or {}).get(table, f"the file of {table}") for table in ("items", "interactions")}
    with CachedFrames() as frames:
        item_rows = frames.keep(catalogue.tagged_items(items))
        with reading(names["items"]):
            _count("items", item_rows, counts, report, names["items"])
        good_items, rejected = split_rejected(item_rows, "items", catalogue.COLUMNS)
        good = None
        if interactions is not None:
            known = _known_items(tables, good_items)
            rows = frames.keep(_tagged_interactions(interactions, known, rating_range, now))
            with reading(names["interactions"]):
                _count("interactions", rows, counts, report, names["interactions"], known)
            good, rejected_interactions = split_rejected(rows, "interactions", events.COLUMNS)
            counts["interactions_tied"] = said_of_times(good, counts["interactions_good"], report)
            rejected = rejected.union(rejected_interactions)
            good = _chosen(good, config, counts)
            if config.k_core > 1:
                item_ids = frames.keep(good).select("item_id").distinct()
                good_items = good_items.join(item_ids, "item_id", "left_semi")
        counts["items_written"] = tables.merge("items", good_items)
        if good is not None:
            counts["interactions_written"] = tables.merge("interactions", good)
        # The table is created also without rejected rows, so that it can be read.
        tables.create("rejected_rows")
        merge_rejected(tables, rejected, "import", run_id, now)
    return counts


def _known_items(tables: Tables, good_items: DataFrame) -> DataFrame:
    """Return (item_id) of the table `items` and of the items to import."""
    known = good_items.select("item_id")
    return known.union(tables.read("items").select("item_id")) if tables.exists("items") else known


def _tagged_interactions(
    interactions: DataFrame, known: DataFrame, rating_range: tuple[float, float], now: dt.datetime
) -> DataFrame:
    """Return the tagged interactions, one good row per key.

    Of good rows with the same user, item, time and event type the row with the highest rating stays; the
    others are `repeated_key`.
    """
    rows = events.tagged(interactions, known, rating_range, now)
    key = TABLES["interactions"].key
    return reject_repeats(rows, key, [F.col("rating").desc_nulls_last()], "repeated_key")


def _count(
    table: str,
    rows: DataFrame,
    counts: dict[str, int],
    report: Callable[[str], None],
    path: str,
    known: DataFrame | None = None,
) -> None:
    """Count and report all tagged rows in one pass.

    `known` is the catalogue of the rows' items. Raises InputError where no row is good.
    """
    outcome = Outcome.of(rows)
    counts[f"{table}_read"] = outcome.num_read
    counts[f"{table}_good"] = outcome.num_good
    counts.update({f"rejected_{table}_{one.reason}": one.number for one in outcome.rejected})
    said = outcome.examples()
    num_unknown = counts.get(f"rejected_{table}_item_not_in_catalogue", 0)
    if known is not None and num_unknown > outcome.num_good:
        said.append(said_of_ids(rows, known))
    if not outcome.num_good:
        why = ", ".join(f"{one.number} × {one.reason}" for one in outcome.rejected) or "it is empty"
        raise InputError(
            f"{table}: no good row among {outcome.num_read} read ({why}) in {path}; "
            f"{'; '.join([*said, 'nothing was imported'])}"
        )
    reasons = ", ".join(f"{one.number:,} {one.reason}" for one in outcome.rejected)
    report(
        f"{table}: {outcome.num_read:,} rows read, {outcome.num_good:,} good"
        + (f"; rejected: {reasons}" if reasons else "")
    )
    for line in said:
        report(f"{table}: {line}")


def _chosen(good: DataFrame, config: ImportingConfig, counts: dict[str, int]) -> DataFrame:
    """Drop low ratings and rows outside the k-core, and count them.

    Raises InputError where the k-core is empty.
    """
    num_rows = counts["interactions_good"]
    if config.min_rating is not None:
        good = good.where(F.col("rating").isNull() | (F.col("rating") >= config.min_rating))
        num_high = good.count()
        counts["below_min_rating"] = num_rows - num_high
        num_rows = num_high
    if config.k_core > 1:
        good = k_core(good, config.k_core)
        num_core = good.count()
        counts["outside_k_core"] = num_rows - num_core
        if not num_core:
            raise InputError(
                f"importing.k_core: {config.k_core} leaves no interaction of {num_rows}; "
                "choose a smaller one; nothing was imported"
            )
    return good

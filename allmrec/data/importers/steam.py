"""Steam reviews and games: the release of 2018 and Kaggle's CSV files."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.files.found import Copies
from allmrec.data.importers.reading import Task, fields_of, read_table

_REVIEWS = {
    "user_id": ("username", "user_id"),
    "item_id": ("product_id", "app_id"),
    "event_time": ("date",),
}
_GAMES = {
    "item_id": ("id", "app_id"),
    "title": ("app_name", "title"),
    "description": ("description",),
    "categories": ("genres", "tags"),
}
_RECOMMENDED = {"recommended": (("is_recommended", "recommended", "recommend"), "flag")}
_ADVICE = "give steam_reviews and steam_games, or Kaggle's recommendations.csv and games.csv"


def read_steam(
    spark: SparkSession,
    reviews: str,
    games: str,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
    copies: Copies | None = None,
) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) of files of reviews and games.

    Rows have `raw` and `problem`. The rating is 1 for a review that recommends the game, 0 for one that
    advises against it, else null: `sequences.min_rating: 1` drops games that a user advises against. Raises
    InputError where a file is missing or of another release.
    """
    copies = copies or Copies.of_this_process(spark)
    fields = fields_of("interactions", _REVIEWS, _RECOMMENDED)
    log = read_table(copies, Task(reviews, "interactions", fields, config, report, _ADVICE))
    rating = F.col("recommended").cast("double")
    items = read_table(copies, Task(games, "items", fields_of("items", _GAMES), config, report, _ADVICE))
    return log.withColumn("rating", rating).drop("recommended"), items

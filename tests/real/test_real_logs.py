"""Imports of the real data sets, in the form their publishers or keepers gave them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig, SequencesConfig
from allmrec.data.importers.amazon import read_amazon
from allmrec.data.importers.mapped import read_files
from allmrec.data.importers.write import import_into
from allmrec.errors import InputError
from allmrec.tables.delta import Tables

DEFAULT = ImportingConfig()
RATINGS = SequencesConfig().rating_range


def imported(spark: SparkSession, tables: Tables, folder: Path) -> tuple[dict[str, int], list[str]]:
    lines: list[str] = []
    paths = str(folder / "interactions.csv.gz"), str(folder / "items.jsonl.gz")
    frames = read_files(spark, *paths, DEFAULT, lines.append)
    return import_into(tables, *frames, DEFAULT, RATINGS, report=lines.append), lines


def test_amazon_beauty_is_imported_twice_without_a_second_commit(
    spark: SparkSession, tables: Tables, real_data: Path
) -> None:
    counts, _ = imported(spark, tables, real_data / "amazon2014_beauty")
    assert (counts["interactions_read"], counts["items_read"], counts["rejected_items_empty_title"]) == (
        198_502,
        12_101,
        7,
    )
    assert counts["interactions_written"] + counts["rejected_interactions_item_not_in_catalogue"] == 198_502
    items = tables.read("items")
    assert items.where(F.col("title").rlike("&(amp|quot|#39|lt|gt);")).isEmpty()
    categories = items.where("item_id = '7806397051'").collect()[0].categories
    assert categories == ["Beauty", "Makeup", "Face", "Concealers & Neutralizers"]
    assert tables.read("interactions").select(F.max("event_time")).collect()[0][0] == dt.datetime(2014, 7, 23)
    before = {name: tables.version(name) for name in ("interactions", "items", "rejected_rows")}
    again, _ = imported(spark, tables, real_data / "amazon2014_beauty")
    assert (again["interactions_written"], again["items_written"]) == (0, 0)
    assert {name: tables.version(name) for name in before} == before


def test_amazon_scientific_has_descriptions_and_synthetic_times(
    spark: SparkSession, tables: Tables, real_data: Path
) -> None:
    counts, lines = imported(spark, tables, real_data / "amazon2018_scientific")
    assert any("synthetic times" in line for line in lines)
    assert counts["interactions_good"] == 59_384
    assert counts["items_good"] == 4_385
    assert tables.read("items").where("description IS NOT NULL").count() > 3_000


@pytest.mark.parametrize(
    ("name", "interactions", "items"), [("ml-100k", 100_000, 1_682), ("ml-1m", 1_000_209, 3_706)]
)
def test_movielens_is_imported_whole(
    spark: SparkSession, tables: Tables, real_data: Path, name: str, interactions: int, items: int
) -> None:
    counts, _ = imported(spark, tables, real_data / name)
    assert counts["interactions_read"] == interactions
    assert (
        counts["interactions_good"]
        >= interactions - counts.get("rejected_interactions_item_not_in_catalogue", 0) - 10
    )
    assert counts["items_good"] >= items - 10
    assert "Comedy" in tables.read("items").where("item_id = '1'").collect()[0].categories


def test_original_gift_cards_are_imported(spark: SparkSession, tables: Tables, real_data: Path) -> None:
    folder = real_data / "raw_amazon2018_gift_cards"
    frames = read_amazon(
        spark, str(folder / "Gift_Cards_5.json.gz"), str(folder / "meta_Gift_Cards.json.gz"), DEFAULT
    )
    counts = import_into(tables, *frames, DEFAULT, RATINGS, report=lambda line: None)
    assert (counts["interactions_read"], counts["items_read"]) == (2_972, 1_547)
    assert counts["interactions_good"] > 2_500
    assert counts["items_good"] > 1_400
    dirty = F.col("title").rlike("<[a-z]|&amp;") | F.col("description").rlike("<[a-z]+[ >]|&amp;")
    assert tables.read("items").where(dirty).isEmpty()


def test_dirty_magazine_titles_are_cleaned_or_rejected(
    spark: SparkSession, tables: Tables, real_data: Path
) -> None:
    path = real_data / "raw_amazon2018_magazine_meta_only" / "meta_Magazine_Subscriptions.json.gz"
    counts = import_into(
        tables, *read_amazon(spark, None, str(path), DEFAULT), DEFAULT, RATINGS, report=lambda line: None
    )
    assert counts["items_read"] == 3_385
    assert counts["rejected_items_empty_title"] > 2_500
    titles = [row.title for row in tables.read("items").collect()]
    assert len(titles) == counts["items_good"] > 50
    assert not any("<" in title or "a-size-medium" in title for title in titles)


def test_2014_reviews_are_read_and_reviews_alone_are_refused(
    spark: SparkSession, real_data: Path, tmp_path: Path
) -> None:
    reviews = real_data / "raw_amazon2014_musical_reviews_sample" / "Musical_Instruments_5.json"
    metadata = tmp_path / "meta.json"
    metadata.write_text("{'asin': '1384719342', 'title': 'Pop filter', 'categories': [['Music']]}\n")
    interactions, _ = read_amazon(spark, str(reviews), str(metadata), DEFAULT)
    assert interactions is not None
    assert interactions.where("problem IS NULL AND user_id IS NOT NULL AND rating IS NOT NULL").count() == 50
    alone = real_data / "raw_amazon2018_all_beauty_reviews_only" / "All_Beauty_5.json.gz"
    with pytest.raises(InputError, match="without metadata"):
        read_amazon(spark, str(alone), None, DEFAULT)

"""MovieLens as GroupLens publishes it: 100k (`u.data`, `u.item`), 1M and 10M (`::`), and the CSV releases."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.importers.lines import line_as_json, parse_csv, read_lines, require
from allmrec.errors import InputError
from allmrec.tables import filesystem

GENRES = tuple(
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western".split("|")
)
"""The 19 genre flags of `u.item`, in their order."""
_RATING = ("user_id", "item_id", "rating", "event_time")
_NUM_FIELDS_BEFORE_GENRES = 5
"""Fields of `u.item` before its genre flags: id, title, two dates and a link."""


def read_movielens(spark: SparkSession, folder: str, config: ImportingConfig) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) of a MovieLens folder, with `raw` and `problem`.

    Which release it is, its file names tell. Titles keep their year ("Toy Story (1995)"), genres become the
    categories. Raises InputError where no release is there.
    """
    names = set(filesystem.list_names(spark, require(spark, folder)))
    for files, read in _READERS.items():
        present = [next((name for name in (file, f"{file}.gz") if name in names), None) for file in files]
        if all(present):
            interactions, items = read(spark, *(f"{folder}/{name}" for name in present))
            nothing = F.lit(None).cast("string")
            items = items.withColumns({"description": nothing, "available": nothing, "updated_at": nothing})
            return interactions.withColumn("event_type", nothing), items
    expected = "; ".join(" and ".join(files) for files in _READERS)
    raise InputError(f"{folder}: no MovieLens release, expected a folder with {expected}")


def _read_100k(spark: SparkSession, ratings: str, movies: str) -> tuple[DataFrame, DataFrame]:
    interactions = _fields(read_lines(spark, ratings), "\t", _RATING)
    names = [f"field_{number}" for number in range(_NUM_FIELDS_BEFORE_GENRES + len(GENRES))]
    names[:2] = ["item_id", "title"]
    items = _fields(read_lines(spark, movies, latin=True), "|", tuple(names))
    flags = names[_NUM_FIELDS_BEFORE_GENRES:]
    genres = [F.when(F.trim(flag) == "1", genre) for flag, genre in zip(flags, GENRES, strict=True)]
    return interactions, items.select(
        "item_id", "title", F.array_compact(F.array(*genres)).alias("categories"), "raw", "problem"
    )


def _read_dat(spark: SparkSession, ratings: str, movies: str) -> tuple[DataFrame, DataFrame]:
    items = _fields(read_lines(spark, movies, latin=True), "::", ("item_id", "title", "genres"))
    return _fields(read_lines(spark, ratings), "::", _RATING), _with_genres(items)


def _read_csv(spark: SparkSession, ratings: str, movies: str) -> tuple[DataFrame, DataFrame]:
    interactions = parse_csv(read_lines(spark, ratings), "userId,movieId,rating,timestamp", _RATING)
    lines = read_lines(spark, movies, latin=True)
    items = parse_csv(lines, "movieId,title,genres", ("item_id", "title", "genres"))
    return interactions, _with_genres(items)


_READERS = {
    ("u.data", "u.item"): _read_100k,
    ("ratings.dat", "movies.dat"): _read_dat,
    ("ratings.csv", "movies.csv"): _read_csv,
}
"""How a release is read, by its files of ratings and of movies."""


def _with_genres(items: DataFrame) -> DataFrame:
    """Return the items with their `genres`, joined by `|`, as the array `categories`."""
    genres = F.when(F.col("genres") != "(no genres listed)", F.split("genres", r"\|"))
    return items.withColumn("categories", genres).drop("genres")


def _fields(lines: DataFrame, separator: str, names: tuple[str, ...]) -> DataFrame:
    """Return the fields of every line by `names`, `raw` and `problem`.

    `problem` is `wrong_number_of_fields` where there are more or fewer.
    """
    rows = lines.withColumn("_fields", F.split("value", f"\\Q{separator}\\E", -1))
    problem = F.coalesce("problem", F.when(F.size("_fields") != len(names), "wrong_number_of_fields"))
    rows = rows.withColumn("problem", problem)
    fields = [
        F.when(F.col("problem").isNull(), F.get("_fields", F.lit(position))).alias(name)
        for position, name in enumerate(names)
    ]
    return rows.select(*fields, line_as_json(F.col("value")).alias("raw"), "problem")

"""MovieLens as GroupLens publishes it: 100k (`u.data`, `u.item`), 1M and 10M (`::`), and the CSV releases."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import ImportingConfig
from allmrec.data.importers.lines import line_as_json, parse_csv, read_lines, require
from allmrec.errors import InputError
from allmrec.tables import filesystem

GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The 19 genre flags of `u.item`, in their order."""
_RELEASES = (("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv"))
_RATING = ("user_id", "item_id", "rating", "event_time")
_MOVIE_FIELDS = 5 + len(GENRES)


def read_movielens(spark: SparkSession, folder: str, config: ImportingConfig) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) of a MovieLens folder, with `raw` and `problem`; which release it is, its file names tell.

    Titles keep their year ("Toy Story (1995)"), genres become the categories. Raises InputError where no release is found.
    """
    names = set(filesystem.list_names(spark, require(spark, folder)))
    for ratings, movies in _RELEASES:
        found = [
            next((name for name in (file, f"{file}.gz") if name in names), None) for file in (ratings, movies)
        ]
        if found[0] and found[1]:
            read = {"u.data": _read_100k, "ratings.dat": _read_dat, "ratings.csv": _read_csv}[ratings]
            interactions, items = read(spark, f"{folder}/{found[0]}", f"{folder}/{found[1]}")
            nothing = F.lit(None).cast("string")
            items = items.withColumns({"description": nothing, "available": nothing, "updated_at": nothing})
            return interactions.withColumn("event_type", nothing), items
    expected = "; ".join(" and ".join(pair) for pair in _RELEASES)
    raise InputError(f"{folder}: no MovieLens release, expected a folder with {expected}")


def _read_100k(spark: SparkSession, ratings: str, movies: str) -> tuple[DataFrame, DataFrame]:
    interactions = _fields(read_lines(spark, ratings), "\t", _RATING)
    names = ("item_id", "title", *(f"field_{place}" for place in range(2, _MOVIE_FIELDS)))
    items = _fields(read_lines(spark, movies, latin=True), "|", names)
    flags = [F.when(F.trim(f"field_{5 + place}") == "1", genre) for place, genre in enumerate(GENRES)]
    return interactions, items.select(
        "item_id", "title", F.array_compact(F.array(*flags)).alias("categories"), "raw", "problem"
    )


def _read_dat(spark: SparkSession, ratings: str, movies: str) -> tuple[DataFrame, DataFrame]:
    items = _fields(read_lines(spark, movies, latin=True), "::", ("item_id", "title", "genres"))
    return _fields(read_lines(spark, ratings), "::", _RATING), _with_genres(items)


def _read_csv(spark: SparkSession, ratings: str, movies: str) -> tuple[DataFrame, DataFrame]:
    rows = parse_csv(
        read_lines(spark, ratings),
        "userId,movieId,rating,timestamp",
        ("user_id", "item_id", "rating", "event_time"),
    )
    items = parse_csv(
        read_lines(spark, movies, latin=True), "movieId,title,genres", ("item_id", "title", "genres")
    )
    return rows, _with_genres(items)


def _with_genres(items: DataFrame) -> DataFrame:
    genres = F.when(F.col("genres") != "(no genres listed)", F.split("genres", r"\|"))
    return items.withColumn("categories", genres).drop("genres")


def _fields(lines: DataFrame, separator: str, names: tuple[str, ...]) -> DataFrame:
    """Return the fields of every line by `names`, `raw` and `problem` (`wrong_number_of_fields` where there are more or fewer)."""
    rows = lines.withColumn("_parts", F.split("value", f"\\Q{separator}\\E", -1))
    problem = F.coalesce("problem", F.when(F.size("_parts") != len(names), "wrong_number_of_fields"))
    rows = rows.withColumn("problem", problem)
    fields = [
        F.when(F.col("problem").isNull(), F.get("_parts", F.lit(place))).alias(name)
        for place, name in enumerate(names)
    ]
    return rows.select(*fields, line_as_json(F.col("value")).alias("raw"), "problem")

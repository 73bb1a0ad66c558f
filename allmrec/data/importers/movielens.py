"""MovieLens releases of GroupLens: 100k (`u.data`), 1M and 10M (`::`), CSV."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from allmrec.config import CsvConfig, ImportingConfig
from allmrec.data.files.form import ZIP
from allmrec.data.files.found import HEAD, Copies
from allmrec.data.importers.reading import Task, fields_of, read_table
from allmrec.errors import InputError
from allmrec.spark import file_bytes, filesystem

GENRES = tuple(
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western".split("|")
)
"""The 19 genre flags of `u.item`, in their order."""
_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_FLAGS = tuple(f"is_{genre}" for genre in GENRES)
_RELEASES = {
    ("u.data", "u.item"): ("\t", _RATINGS, "|", (*_MOVIES[:2], "released", "on_video", "link", *_FLAGS)),
    ("ratings.dat", "movies.dat"): ("::", _RATINGS, "::", _MOVIES),
    ("ratings.csv", "movies.csv"): (",", None, ",", None),
}
"""Files of ratings and of movies → (separator, columns) of each. None: in the header."""
_LOG = {"user_id": ("userId",), "item_id": ("movieId",), "event_time": ("timestamp",), "rating": ("rating",)}
_CATALOGUE = {"item_id": ("movieId",), "title": ("title",)}
_ADVICE = "give a release as it was published"


def read_movielens(
    spark: SparkSession,
    folder: str,
    config: ImportingConfig,
    report: Callable[[str], None] = print,
    copies: Copies | None = None,
) -> tuple[DataFrame, DataFrame]:
    """Return (interactions, items) of a MovieLens folder or zip archive.

    Rows have `raw` and `problem`. File names decide the release. Titles keep their year ("Toy Story (1995)"),
    genres become the categories. Raises InputError where no release is found.
    """
    copies = copies or Copies.of_this_process(spark)
    paths = _paths(copies, folder)
    for files, (log_separator, log_names, separator, names) in _RELEASES.items():
        present = [
            next((paths[name] for name in (file, f"{file}.gz") if name in paths), None) for file in files
        ]
        ratings, movies = present
        if ratings is None or movies is None:
            continue
        rules = _rules(spark, ratings, log_separator, log_names, config)
        fields = fields_of("interactions", _LOG)
        log = read_table(copies, Task(ratings, "interactions", fields, rules, report, _ADVICE))
        rules = _rules(spark, movies, separator, names, config)
        more = {"genres": (("genres",), "text")} | {flag: ((flag,), "text") for flag in _FLAGS}
        fields = fields_of("items", _CATALOGUE, more)
        items = read_table(copies, Task(movies, "items", fields, rules, report, _ADVICE))
        return log, _with_genres(items)
    expected = "; ".join(" and ".join(files) for files in _RELEASES)
    raise InputError(f"{folder}: no MovieLens release, expected a folder with {expected}, or its zip archive")


def _paths(copies: Copies, folder: str) -> dict[str, str]:
    """Return name → path of a folder's or archive's files.

    Raises InputError where the path does not exist.
    """
    spark = copies.spark
    root = file_bytes.qualified(spark, folder)
    if not filesystem.exists(spark, root):
        raise InputError(f"{folder}: no such file or folder; check the path")
    names = filesystem.list_names(spark, root)
    if names == [root.rpartition("/")[2]] and file_bytes.first_bytes(spark, root, len(ZIP)) == ZIP:
        return {name.rpartition("/")[2]: status.uri for name, status in copies.unpacked(folder, root)}
    return {name: f"{folder.rstrip('/')}/{name}" for name in names}


def _rules(
    spark: SparkSession, path: str, separator: str, names: tuple[str, ...] | None, config: ImportingConfig
) -> ImportingConfig:
    """Return the rules for a file of a release. Older files are not in UTF-8."""
    header = {} if names is None else {"interactions": names, "items": names}
    csv = CsvConfig.model_validate(
        {
            "separator": separator,
            "quote": '"' if names is None else "",
            "encoding": _encoding(spark, path),
            "header": header,
        }
    )
    return config.model_copy(update={"csv": csv, "time_format": None, "null_words": ()})


def _encoding(spark: SparkSession, path: str) -> str:
    """Return utf-8, or iso-8859-1 if the file's beginning is no UTF-8."""
    head = file_bytes.first_bytes(spark, file_bytes.qualified(spark, path), HEAD)
    try:
        head.decode()
    except UnicodeDecodeError as error:
        is_cut_off = len(head) == HEAD and error.start >= len(head) - 4
        return "utf-8" if is_cut_off else "iso-8859-1"
    return "utf-8"


def _with_genres(items: DataFrame) -> DataFrame:
    """Return the items with the array `categories`, from genres or their flags."""
    genres = F.split(F.nullif(F.col("genres"), F.lit("(no genres listed)")), r"\|")
    flagged = F.array_compact(
        F.array(*(F.when(F.trim(flag) == "1", genre) for flag, genre in zip(_FLAGS, GENRES, strict=True)))
    )
    has_flags = F.coalesce(*_FLAGS).isNotNull()
    return items.withColumn("categories", F.when(has_flags, flagged).otherwise(genres)).drop(
        "genres", *_FLAGS
    )

"""Importers of other formats into the tables `interactions` and `items`.

`IMPORTERS` names the readers without loading them, because they need Spark and `allmrec --help` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Option(NamedTuple):
    """An option of an importer: the path of a file or folder."""

    name: str
    help: str
    fills: tuple[str, ...]
    """The tables that its rows are written to."""
    required: bool = True


@dataclass(frozen=True)
class Importer:
    """A kind of files: help, options and reader of its command."""

    help: str
    options: tuple[Option, ...]
    """In the order of the command's help. A list of users (`USERS`) is the same for every importer."""
    reader: str
    """`module:function` of the reader.

    The reader takes the Spark session, then by name the other options (None where one is not given), `config`
    (`ImportingConfig`), `report` and `copies` (`allmrec.data.files.found.Copies`). The result has the frames
    (interactions, items) as `allmrec.data.importers.reading.read_table` makes them; interactions may be None.
    """

    def paths(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the path by table; `given` has the options' values by name."""
        return {table: given[one.name] for one in self.options if one.name in given for table in one.fills}


_ANY_FORM = "A file or folder of CSV, JSON, Parquet or Delta."
USERS = Option("users", "Optional list of users, for those without an event yet.", ("users",), required=False)

IMPORTERS = {
    "files": Importer(
        "Any CSV, JSON, Parquet or Delta, by the column mapping `importing.columns`.",
        (
            Option("interactions", _ANY_FORM, ("interactions",)),
            Option("items", _ANY_FORM, ("items",)),
            USERS,
        ),
        "allmrec.data.importers.mapped:read_files",
    ),
    "amazon": Importer(
        "Amazon reviews and metadata in their original form.",
        (
            Option(
                "reviews",
                "Original review file (2014, 2018 or 2023), compressed or not.",
                ("interactions",),
                required=False,
            ),
            Option("metadata", "Original metadata file of the same category.", ("items",), required=False),
        ),
        "allmrec.data.importers.amazon:read_amazon",
    ),
    "movielens": Importer(
        "A MovieLens release in its original form.",
        (
            Option(
                "folder",
                "Release, or its zip archive: 100k, 1M, 10M, or a CSV one.",
                ("interactions", "items"),
            ),
        ),
        "allmrec.data.importers.movielens:read_movielens",
    ),
    "steam": Importer(
        "Steam reviews and games in their original form.",
        (
            Option("reviews", "steam_reviews (2018), or Kaggle's recommendations.csv.", ("interactions",)),
            Option("games", "steam_games (2018), or Kaggle's games.csv.", ("items",)),
        ),
        "allmrec.data.importers.steam:read_steam",
    ),
}
"""Every importer by its command, `allmrec import NAME`."""

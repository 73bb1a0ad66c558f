"""Files → interactions, items (and users): an importer reads, `import_into` checks, rejects and merges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame

from allmrec.data.files.found import COPIES, Copies
from allmrec.data.importers.amazon import read_amazon
from allmrec.data.importers.mapped import read_files, read_users
from allmrec.data.importers.movielens import read_movielens
from allmrec.data.importers.steam import read_steam
from allmrec.data.importers.write import import_into
from allmrec.errors import ConfigError
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import source_of


def import_files(context: Context, interactions: str, items: str, users: str | None) -> None:
    """Import CSV, JSON, Parquet or Delta by `importing.columns`.

    Raises InputError where a file cannot be read, ConfigError where a table is read in place.
    """
    settings = context.config.importing
    _require_own(context, "interactions", "items", *([] if users is None else ["users"]))
    with _copies(context) as copies:
        frames = read_files(context.spark, interactions, items, settings, context.report, copies)
        _write(context, *frames, paths={"interactions": interactions, "items": items})
        if users is not None:
            rows = read_users(context.spark, users, settings, context.report, copies)
            context.tables.merge("users", rows)


def import_amazon(context: Context, reviews: str | None, metadata: str | None) -> None:
    """Import Amazon's original reviews and metadata (2014, 2018 or 2023).

    Raises InputError where a file cannot be read, ConfigError where a table is read in place.
    """
    _require_own(context, "items", *([] if reviews is None else ["interactions"]))
    with _copies(context) as copies:
        settings = context.config.importing
        frames = read_amazon(context.spark, reviews, metadata, settings, context.report, copies)
        _write(context, *frames, paths={"interactions": str(reviews), "items": str(metadata)})


def import_movielens(context: Context, folder: str) -> None:
    """Import a MovieLens release, unpacked or not.

    Raises InputError where the folder holds none, ConfigError where a table is read in place.
    """
    _require_own(context, "interactions", "items")
    with _copies(context) as copies:
        frames = read_movielens(context.spark, folder, context.config.importing, context.report, copies)
        _write(context, *frames, paths={"interactions": folder, "items": folder})


def import_steam(context: Context, reviews: str, games: str) -> None:
    """Import Steam's original reviews and games, or Kaggle's.

    Raises InputError where a file cannot be read, ConfigError where a table is read in place.
    """
    _require_own(context, "interactions", "items")
    with _copies(context) as copies:
        frames = read_steam(context.spark, reviews, games, context.config.importing, context.report, copies)
        _write(context, *frames, paths={"interactions": reviews, "items": games})


@contextmanager
def _copies(context: Context) -> Iterator[Copies]:
    """Yield a folder for copies of files that every machine of a cluster sees; delete it afterwards."""
    copies = Copies(context.spark, f"{context.tables.root}/_staging/{COPIES}{context.run_id}")
    try:
        yield copies
    finally:
        copies.delete()


def _require_own(context: Context, *names: str) -> None:
    """Raise ConfigError where nights read a table that is about to be filled somewhere else."""
    for source in (source_of(context, name) for name in names):
        if not source.is_own:
            raise ConfigError(
                f"tables.{source.name}: {source.place} is read in place, and an import would go elsewhere; "
                f"import without tables.{source.name}"
            )


def _write(context: Context, interactions: DataFrame | None, items: DataFrame, paths: dict[str, str]) -> None:
    settings = context.config.importing
    counts = import_into(
        context.tables, interactions, items, settings, context.run_id, report=context.report, paths=paths
    )
    for name in ("items_written", "interactions_written"):
        if name in counts:
            context.report(f"import: {name.replace('_', ' ')}: {counts[name]:,}")

"""Files → interactions, items (and users): an importer reads, `import_into` checks, rejects and merges."""

from __future__ import annotations

from pyspark.sql import DataFrame

from allmrec.data.importers.amazon import read_amazon
from allmrec.data.importers.mapped import read_files, read_users
from allmrec.data.importers.movielens import read_movielens
from allmrec.data.importers.write import import_into
from allmrec.errors import ConfigError
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import source_of


def import_files(context: Context, interactions: str, items: str, users: str | None) -> None:
    """Import CSV, JSON lines, Parquet or Delta by `importing.columns`.

    Raises InputError where a file cannot be read, ConfigError where a table is read in place.
    """
    settings = context.config.importing
    _require_own(context, "interactions", "items", *([] if users is None else ["users"]))
    _write(context, *read_files(context.spark, interactions, items, settings, context.report))
    if users is not None:
        context.tables.merge("users", read_users(context.spark, users, settings))


def import_amazon(context: Context, reviews: str | None, metadata: str | None) -> None:
    """Import Amazon's original reviews and metadata (2014 or 2018).

    Raises InputError where a file cannot be read, ConfigError where a table is read in place.
    """
    _require_own(context, "items", *([] if reviews is None else ["interactions"]))
    _write(context, *read_amazon(context.spark, reviews, metadata, context.config.importing))


def import_movielens(context: Context, folder: str) -> None:
    """Import an unpacked MovieLens release.

    Raises InputError where the folder holds none, ConfigError where a table is read in place.
    """
    _require_own(context, "interactions", "items")
    _write(context, *read_movielens(context.spark, folder, context.config.importing))


def _require_own(context: Context, *names: str) -> None:
    """Raise ConfigError where nights read a table that is about to be filled somewhere else."""
    for source in (source_of(context, name) for name in names):
        if not source.is_own:
            raise ConfigError(
                f"tables.{source.name}: {source.place} is read in place, and an import would go elsewhere; "
                f"import without tables.{source.name}"
            )


def _write(context: Context, interactions: DataFrame | None, items: DataFrame) -> None:
    settings = context.config.importing
    counts = import_into(context.tables, interactions, items, settings, context.run_id, report=context.report)
    for name in ("items_written", "interactions_written"):
        if name in counts:
            context.report(f"import: {name.replace('_', ' ')}: {counts[name]:,}")

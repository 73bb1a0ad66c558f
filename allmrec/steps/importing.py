"""Import of files into interactions, items and users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pkgutil import resolve_name

from allmrec.data.files.found import COPIES, Copies
from allmrec.data.importers import USERS, Importer
from allmrec.data.importers.mapped import read_users
from allmrec.data.importers.write import import_into
from allmrec.errors import ConfigError
from allmrec.runtime.context import Context
from allmrec.runtime.inputs import source_of
from allmrec.spark.cached_frames import CachedFrames


def run_import(context: Context, importer: Importer, options: Mapping[str, str]) -> None:
    """Import the files of an importer. `options` has the given paths by option.

    Raises InputError where a file cannot be read, ConfigError where a table is read in place.
    """
    settings = context.config.importing
    paths = importer.paths(options)
    _require_own(context, *paths)
    given = {option.name: options.get(option.name) for option in importer.options if option != USERS}
    with _copies(context) as copies:
        read = resolve_name(importer.reader)
        interactions, items = read(
            context.spark, **given, config=settings, report=context.report, copies=copies
        )
        counts = import_into(
            context.tables,
            interactions,
            items,
            settings,
            context.config.sequences.rating_range,
            context.run_id,
            report=context.report,
            paths=paths,
        )
        for name in ("items_written", "interactions_written"):
            if name in counts:
                context.report(f"import: {name.replace('_', ' ')}: {counts[name]:,}")
        if USERS.name in options:
            with CachedFrames() as frames:
                users = read_users(
                    context.spark, options[USERS.name], settings, context.report, copies, frames.keep
                )
                context.tables.merge("users", users)


@contextmanager
def _copies(context: Context) -> Iterator[Copies]:
    """Yield a folder for copies of files on shared storage. Delete it afterwards."""
    copies = Copies(context.spark, f"{context.tables.root}/_staging/{COPIES}{context.run_id}")
    try:
        yield copies
    finally:
        copies.delete()


def _require_own(context: Context, *names: str) -> None:
    """Raise ConfigError where a table to fill is read in place."""
    for source in (source_of(context, name) for name in names):
        if not source.is_own:
            raise ConfigError(
                f"tables.{source.name}: {source.place} is read in place, which no import writes; "
                f"import without tables.{source.name}"
            )

"""Settings of tables: where they are, and how other people's values become ours."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

from allmrec.config.sections.section import Section, Text


def _time_format(value: str | None) -> str | None:
    """Check a unit of Unix numbers or a pattern of strptime."""
    if value is None or value in ("s", "ms", "us", "ns"):
        return value
    is_pattern = "%" in value
    try:
        datetime.strptime("no time", value)
    except (ValueError, re.error) as error:
        is_pattern = is_pattern and "does not match format" in str(error)
    if not is_pattern:
        raise ValueError(
            f"time_format: {value}, expected s, ms, us, ns or a pattern of strptime such as %d.%m.%Y"
        )
    return value


NOTHING = ("NULL", "null", "\\N", "NaN", "nan", "None", "<NA>", "NaT")
"""Words that databases, pandas and R write for a missing value."""


class ValueRules(Section):
    """How values of other people become ours, in files and in tables read in place."""

    time_format: Annotated[str | None, AfterValidator(_time_format)] = None
    """Format of the times: `s`, `ms`, `us` or `ns` for Unix numbers, or a pattern of strptime such as
    `%d.%m.%Y`; null: Unix seconds or milliseconds from 1980 on, told apart by their size, or ISO texts, which
    are read beside a format too."""
    category_separator: str | None = None
    """Separator of the categories in a text (` > ` in `a > b`); null: the text is one category."""
    null_words: tuple[str, ...] = NOTHING
    """Texts that stand for a missing value."""


class SourceConfig(ValueRules):
    """An input table that is read in place: where it lies, what its columns are called, which rows count."""

    table: Text | None = None
    """Its name in Spark's catalogue, such as `catalog.schema.table`; null: it lies at `path`."""
    path: Text | None = None
    """Its folder or file; null: the Delta table `<tables.root>/<table name>`."""
    format: Text = "delta"
    """What lies at `path`: `delta`, `parquet`, or another format of Spark's that needs no options."""
    columns: dict[str, Text] = {}
    """Its columns by our names, such as `{user_id: customer_id}`; the others are called as ours."""
    where: Text | None = None
    """Condition in SQL on its columns, such as `status <> 'cancelled'`; null: all rows count."""


class TablesConfig(Section):
    """The places of the tables."""

    root: Text = "tables"
    """Folder that holds every table as `<root>/<table name>`: local, or any URI that Hadoop's file system
    reads."""
    schema_name: Text | None = None
    """Schema of Spark's catalogue, such as `catalog.schema`, in which the tables below `root` get names as
    well, as external tables; null: they have none."""
    interactions: SourceConfig = SourceConfig()
    """The log, where it is read in place."""
    items: SourceConfig = SourceConfig()
    """The catalogue, where it is read in place."""
    users: SourceConfig = SourceConfig()
    """The users, where they are read in place."""
    rules: Text | None = None
    """Delta table with rules beside `publish.rules`: its name in Spark's catalogue, or its folder, a
    text with a `/`. A row is a rule, a column one of its keys; other columns are ignored."""

"""Settings of imports."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from allmrec.config.sections.section import Section, Text
from allmrec.config.sections.table_settings import ValueRules


def _encoding(value: str | None) -> str | None:
    """Check the name of an encoding."""
    if value is not None:
        try:
            codecs.lookup(value)
        except LookupError:
            raise ValueError(
                f"importing.csv.encoding: {value}, expected one that Python knows, such as windows-1252"
            ) from None
    return value


def _separator(value: str | None) -> str | None:
    """Return the separator; `tab` and a backslash with t are a tab."""
    return "\t" if value in ("tab", "\\t") else value


class ColumnMapping(Section):
    """Names of an imported file's columns. Of several names the first one present is read."""

    user_id: tuple[Text, ...] = ("user_id",)
    """Columns that may hold the user id."""
    item_id: tuple[Text, ...] = ("item_id",)
    """Columns that may hold the item id."""
    event_time: tuple[Text, ...] = ("event_time", "timestamp")
    """Columns that may hold the time."""
    position: tuple[Text, ...] = ("position",)
    """Columns that may hold an order, for files without times."""
    rating: tuple[Text, ...] = ("rating",)
    """Columns that may hold the rating."""
    event_type: tuple[Text, ...] = ("event_type",)
    """Columns that may hold the kind of event."""
    title: tuple[Text, ...] = ("title",)
    """Columns that may hold the title."""
    description: tuple[Text, ...] = ("description",)
    """Columns that may hold the description: text, or an array of texts."""
    categories: tuple[Text, ...] = ("categories", "category_and_brand")
    """Columns that may hold the categories: an array (nested or flat), or a text."""
    available: tuple[Text, ...] = ("available",)
    """Columns that may say whether the item is available."""
    updated_at: tuple[Text, ...] = ("updated_at",)
    """Columns that may hold the time of the item's last change."""


class CsvConfig(Section):
    """Form of CSV files. A null setting is chosen by the content of each file, and reported."""

    separator: Annotated[str | None, Field(min_length=1), AfterValidator(_separator)] = None
    """Separator of values, such as `;`, `tab` or `::`; null: comma, semicolon, tab, `|` or Hive's ^A."""
    quote: Annotated[str | None, Field(max_length=1)] = None
    """Quote around values that contain separators or line breaks; empty: none; null: `"`, or none if no value
    is enclosed."""
    escape: Literal["doubling", "backslash"] | None = None
    """Form of a quote inside of quotes: `""` or `\\"`; null: as the content shows."""
    encoding: Annotated[str | None, AfterValidator(_encoding)] = None
    """Encoding, such as `windows-1252`; null: UTF-8, or UTF-16 or UTF-32 where the first bytes show it."""
    header: dict[Literal["interactions", "items", "users"], tuple[str, ...]] = {}
    """Columns of files without a header, such as `{interactions: [user_id, item_id, timestamp]}`."""

    @model_validator(mode="after")
    def _check_separator(self) -> CsvConfig:
        if self.separator is not None and len(self.separator) > 1 and self.quote:
            raise ValueError(
                f"importing.csv.quote: {self.quote}, expected none where importing.csv.separator has several "
                f"characters ({self.separator})"
            )
        return self


class ImportingConfig(ValueRules):
    """How files become the `interactions` and `items` tables."""

    columns: ColumnMapping = ColumnMapping()
    """Column mapping of `import files`."""
    csv: CsvConfig = CsvConfig()
    """CSV files."""
    k_core: Annotated[int, Field(ge=0)] = 0
    """Keep only users and items with at least this many interactions, repeated until stable; 0: keep all."""
    min_rating: float | None = None
    """Lowest rating that is imported; null: all are."""

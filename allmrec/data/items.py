"""The catalogue: validated and cleaned items."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import ValueRules
from allmrec.data.columns import is_blank
from allmrec.data.rejection import keep_raw, raw_row, reader_problem, reject_repeats
from allmrec.data.text import clean, clean_title
from allmrec.data.values import typed
from allmrec.item_text import text_hash

COLUMNS = ("item_id", "title", "description", "categories", "available", "updated_at")
_TIES = ("title", "description", "categories", "available")


def tagged_items(items: DataFrame) -> DataFrame:
    """Return every row with the table's columns and types, `raw` and `reason`.

    See `rejection`. `items` has the columns of the table, in its types or others that `values.can_read`, and
    maybe `raw`, `problem` (the reader's reason) and `item` (values to pass through), which is kept. Texts are
    cleaned, and a null `available` becomes true. Of good rows with the same id the row with the newest
    `updated_at` stays (then the first by title, description, categories, available and `item`).

    Reasons, the first that applies: the reader's and those of `values`, null_item_id, empty_item_id,
    empty_title (also a title of only markup), duplicate_item_id.
    """
    items = typed(items, "items", ValueRules(), trusts_texts=True)
    passed = [name for name in ("item",) if name in items.columns]
    rows = items.select(
        F.col("item_id"),
        _clean_titles(F.col("title")).alias("title"),
        F.nullif(_clean_texts(F.col("description")), F.lit("")).alias("description"),
        _clean_lists(F.col("categories")).alias("categories"),
        F.coalesce("available", F.lit(True)).alias("available"),
        "updated_at",
        raw_row(items, COLUMNS).alias("raw"),
        reader_problem(items).alias("reason"),
        *passed,
    )
    reason = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("item_id").isNull(), "null_item_id")
        .when(is_blank(F.col("item_id")), "empty_item_id")
        .when(F.coalesce(F.col("title"), F.lit("")) == "", "empty_title")
    )
    ties = [F.col(name).asc_nulls_last() for name in (*_TIES, *passed)]
    newest_first = [F.col("updated_at").desc_nulls_last(), *ties]
    return reject_repeats(
        keep_raw(rows.withColumn("reason", reason)), ["item_id"], newest_first, "duplicate_item_id"
    )


@F.pandas_udf(T.StringType())  # type: ignore[call-overload]
def text_hashes(titles: pd.Series, descriptions: pd.Series) -> pd.Series:
    """Return `text_hash` of every item."""
    pairs = zip(titles, descriptions, strict=True)
    return pd.Series([text_hash(title, description) for title, description in pairs], dtype=object)


@F.pandas_udf(T.StringType())  # type: ignore[call-overload]
def _clean_texts(texts: pd.Series) -> pd.Series:
    """Clean every text; null stays null."""
    return texts.map(clean, na_action="ignore")


@F.pandas_udf(T.StringType())  # type: ignore[call-overload]
def _clean_titles(titles: pd.Series) -> pd.Series:
    """Clean every title; null stays null."""
    return titles.map(clean_title, na_action="ignore")


@F.pandas_udf(T.ArrayType(T.StringType()))  # type: ignore[call-overload]
def _clean_lists(lists: pd.Series) -> pd.Series:
    """Clean the texts of every list and drop empty ones. Null stays null."""

    def cleaned(texts: Sequence[str | None] | None) -> list[str] | None:
        if texts is None:
            return None
        return [text for text in (clean(text) for text in texts if text is not None) if text]

    return lists.map(cleaned)

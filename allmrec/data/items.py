"""The catalogue: validated and cleaned items."""

from __future__ import annotations

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.data.interactions import empty, keep_raw, parsed_time
from allmrec.data.text import clean, clean_title

COLUMNS = ("item_id", "title", "description", "categories", "available", "updated_at")


def clean_text(text: Column) -> Column:
    """Return the text column cleaned as `text.clean` does; null stays null."""
    return _clean_texts(text)


def tagged_items(items: DataFrame) -> DataFrame:
    """Return every row with its `reason` (null: good) and `raw` (the row as JSON, null where the columns say it all).

    `items` has the columns of the table, or of an importer: then everything but categories may be text, and `raw` and `problem` (a reason
    the reader found) say more. Good rows have cleaned text, `available` true where it was null, and every item once (the newest
    `updated_at`, then the first title). Reasons: the reader's, null_item_id, empty_item_id, empty_title (also one of nothing but markup),
    duplicate_item_id. `split_rejected` parts the rows.
    """
    types = {column.name: column.dataType for column in items.schema}
    rows = items.select(
        F.col("item_id"),
        _clean_titles(F.col("title")).alias("title"),
        F.nullif(clean_text(F.col("description")), F.lit("")).alias("description"),
        _clean_lists(F.col("categories")).alias("categories"),
        _available(F.col("available"), types["available"]).alias("available"),
        parsed_time(F.col("updated_at"), types["updated_at"]).alias("updated_at"),
        (
            F.col("raw") if "raw" in types else F.to_json(F.struct(*COLUMNS), {"ignoreNullFields": "false"})
        ).alias("raw"),
        (F.col("problem") if "problem" in types else F.lit(None).cast("string")).alias("reason"),
    )
    reason = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("item_id").isNull(), "null_item_id")
        .when(empty(F.col("item_id")), "empty_item_id")
        .when(F.coalesce(F.col("title"), F.lit("")) == "", "empty_title")
    )
    rows = keep_raw(rows.withColumn("reason", reason))
    order = [
        F.col("updated_at").desc_nulls_last(),
        *(F.col(name).asc_nulls_last() for name in ("title", "description", "categories", "available")),
    ]
    # Rows with a reason are numbered apart (by themselves), so that a bad row never displaces a good one.
    place = F.row_number().over(Window.partitionBy("item_id", F.col("reason").isNull()).orderBy(*order))
    repeated = F.when(F.col("reason").isNull() & (F.col("_place") > 1), "duplicate_item_id").otherwise(
        F.col("reason")
    )
    return rows.withColumn("_place", place).withColumn("reason", repeated).drop("_place")


def _available(column: Column, kind: T.DataType) -> Column:
    if isinstance(kind, T.StringType):
        column = F.expr("try_cast(trim(available) AS boolean)")
    return F.coalesce(column.cast("boolean"), F.lit(True))


@F.pandas_udf(T.StringType())  # type: ignore[call-overload]
def _clean_texts(texts: pd.Series) -> pd.Series:
    return texts.map(clean, na_action="ignore")


@F.pandas_udf(T.StringType())  # type: ignore[call-overload]
def _clean_titles(titles: pd.Series) -> pd.Series:
    return titles.map(clean_title, na_action="ignore")


@F.pandas_udf(T.ArrayType(T.StringType()))  # type: ignore[call-overload]
def _clean_lists(lists: pd.Series) -> pd.Series:
    def cleaned(texts: object) -> list[str] | None:
        if texts is None:
            return None
        plain = (clean(text) for text in texts if text is not None)  # type: ignore[attr-defined]
        return [text for text in plain if text]

    return lists.map(cleaned)

"""Rules that read values of any type for the tables.

Imports and tables in place share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.config import ValueRules
from allmrec.data.columns import json_object
from allmrec.data.lists import PLAIN, listed
from allmrec.data.rules import RULES, TYPES, reason_of
from allmrec.data.times import parsed_time
from allmrec.tables.schemas import TABLES

_TRUE = ("true", "t", "yes", "y")
_FALSE = ("false", "f", "no", "n")
_FLOAT_DIGITS = 2**24
_DOUBLE_DIGITS = 2**53
"""A double has every whole number up to this one. A float up to `_FLOAT_DIGITS`."""
_WHOLE = r"^-?(0|[1-9][0-9]*)\.0+$"
"""10.0: an integer of a pandas column with a gap."""
_JAVA_DOUBLE = r"^-?[0-9]\.[0-9]+E[0-9]{1,2}$"
"""1.7850123E7: a double as Java writes it."""
_LOST_DIGITS = r"^-?[0-9](\.[0-9]+)?[eE]\+[0-9]+$"
"""1.23457E+17: a number as spreadsheets print it, with lost digits."""


_LISTED = T.StructType(
    [
        T.StructField("texts", T.ArrayType(T.StringType())),
        T.StructField("is_wrong", T.BooleanType()),
    ]
)
"""Spark's type of the result of `listed`."""


class Conversion(NamedTuple):
    """A column of a frame, and how it is read."""

    name: str
    rule: str
    """A key of `RULES`' values, such as `id` or `time`."""
    reason: str
    """The reason of unreadable values."""
    rules: ValueRules


class Read(NamedTuple):
    """A column, read by a rule."""

    value: Column
    """In the table's type; null for missing and unreadable values."""
    fault: Column
    """The reason of an unreadable value; null for readable and missing values."""


def can_read(kind: T.DataType, rule: str) -> bool:
    """Return whether a rule can read values of a type."""
    if isinstance(kind, T.NullType | T.StringType | T.BinaryType):
        return True
    if isinstance(kind, T.NumericType):
        return rule not in ("prose", "path")
    if isinstance(kind, T.BooleanType):
        return rule == "flag"
    if isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType):
        return rule == "time"
    if isinstance(kind, T.ArrayType) and rule in ("prose", "path"):
        element = kind.elementType
        if rule == "path" and isinstance(element, T.ArrayType):
            element = element.elementType
        if rule == "path" and isinstance(element, T.StructType) and "name" in element.fieldNames():
            element = element["name"].dataType
        return isinstance(element, T.StringType | T.IntegralType)
    return False


def typed(rows: DataFrame, table: str, rules: ValueRules, trusts_texts: bool = False) -> DataFrame:
    """Return rows of a table with its columns in its types.

    `rows` has the table's columns in types that `can_read`, and maybe `raw` (the row as JSON), `problem`
    (the reader's reason to reject it) and `item` (values to pass through), which is kept. If a column is
    converted, `raw` and `problem` are in the result, and `problem` also names unreadable values
    (`unparsable_rating`, `not_utf8`, …). With `trusts_texts` strings are not checked in columns of strings.
    """
    names = [column.name for column in TABLES[table].columns]
    passed = [name for name in ("item",) if name in rows.columns]
    asked = []
    for column in TABLES[table].columns:
        kind = rows.schema[column.name].dataType
        is_same = kind.simpleString() == column.type.simpleString()
        if not is_same or (_holds_text(kind) and not trusts_texts):
            asked.append(Conversion(column.name, RULES[column.name], reason_of(column.name), rules))
    if not asked:
        kept = [name for name in ("raw", "problem") if name in rows.columns]
        return rows.select(*names, *kept, *passed)
    raw = F.col("raw") if "raw" in rows.columns else json_object(*names)
    known = [F.col("problem")] if "problem" in rows.columns else []
    rows, reads = read_columns(rows, asked)
    value_of = {one.name: read.value for one, read in zip(asked, reads, strict=True)}
    values = (value_of.get(name, F.col(name)).alias(name) for name in names)
    problem = F.coalesce(*known, *(read.fault for read in reads))
    return rows.select(*values, raw.alias("raw"), problem.alias("problem"), *passed)


def read_columns(frame: DataFrame, asked: Sequence[Conversion]) -> tuple[DataFrame, list[Read]]:
    """Return the frame with intermediate columns, and each of `asked` as it is read.

    The intermediate columns keep plans small. Spark copies an expression into every place that uses it, and
    the time of a text uses the text sixty times. Raises ValueError for a type that a rule cannot read.
    """
    kinds = {field.name: field.dataType for field in frame.schema}
    texts: dict[str, Column] = {}
    lists: dict[str, Column] = {}
    for number, one in enumerate(asked):
        kind = kinds[one.name]
        if not can_read(kind, one.rule):
            raise ValueError(f"{one.rule} is not read from {kind.simpleString()}")
        if _is_text(kind):
            text, fault = _text(F.col(one.name), one.rule, _null_words(one))
            texts |= {f"_text_{number}": text, f"_not_text_{number}": fault}
            if one.rule in ("prose", "path"):
                lists[f"_list_{number}"] = _listed(_possible_list(F.col(f"_text_{number}")))
    values = {f"_value_{number}": _value(one, kinds[one.name], number) for number, one in enumerate(asked)}
    frame = frame.withColumns(texts).withColumns(lists).withColumns(values)
    reads = [
        Read(F.col(f"_value_{number}"), _fault(one, kinds[one.name], number))
        for number, one in enumerate(asked)
    ]
    return frame, reads


def _value(one: Conversion, kind: T.DataType, number: int) -> Column:
    """Return a column by its rule, in terms of its text. Null if it is unreadable."""
    if isinstance(kind, T.NullType):
        return F.lit(None).cast(TYPES[one.rule])
    if isinstance(kind, T.ArrayType):
        return _of_array(F.col(one.name), kind, one.rule).value
    if not _is_text(kind):
        return _of_type(F.col(one.name), kind, one.rule, one.rules)
    text = F.col(f"_text_{number}")
    if one.rule in ("prose", "path"):
        return _of_prose(text, F.col(f"_list_{number}"), one.rule, one.rules)
    return _of_text(text, one.rule, one.rules)


def _fault(one: Conversion, kind: T.DataType, number: int) -> Column:
    """Return the reason of a column's unreadable values, in terms of text and value."""
    found = F.col(one.name)
    value = F.col(f"_value_{number}")
    if isinstance(kind, T.NullType):
        return F.lit(None).cast("string")
    if isinstance(kind, T.ArrayType):
        return _of_array(found, kind, one.rule).fault
    if _is_text(kind):
        text = F.col(f"_text_{number}")
        is_wrong = text.isNotNull() & (F.trim(text) != "") & value.isNull()
        if one.rule in ("prose", "path"):
            is_wrong = F.col(f"_list_{number}.is_wrong")
        return F.coalesce(F.col(f"_not_text_{number}"), F.when(is_wrong, one.reason))
    is_there = found.isNotNull()
    if isinstance(kind, T.DoubleType | T.FloatType):
        is_there = is_there & ~F.isnan(found)
    return F.when(is_there & value.isNull(), one.reason)


def _is_text(kind: T.DataType) -> bool:
    return isinstance(kind, T.StringType | T.BinaryType)


def _null_words(one: Conversion) -> list[str]:
    """Return the texts for a missing value. NaN is a number for a rating, outside of every range."""
    return [word for word in one.rules.null_words if one.rule != "number" or word.lower() != "nan"]


def as_raw(found: Column, kind: T.DataType, is_id: bool) -> Column:
    """Return a column for `raw`: bytes as texts, ids as read.

    Rejected rows can then be searched for a user.
    """
    if isinstance(kind, T.BinaryType):
        return F.make_valid_utf8(found.cast("string"))
    if is_id and isinstance(kind, T.DoubleType | T.FloatType):
        return F.coalesce(_digits(found, kind), found.cast("string"))
    return found


def _holds_text(kind: T.DataType) -> bool:
    return isinstance(kind, T.StringType) or (
        isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.StringType)
    )


def _text(found: Column, rule: str, nothing: list[str]) -> tuple[Column, Column]:
    """Return (text, reason). The text is null for null words and invalid texts."""
    text = found.cast("string")
    fault = F.when(~F.is_valid_utf8(text), "not_utf8")
    if rule == "id":
        # Other texts are cleaned of zero characters.
        fault = fault.when(F.contains(text, F.lit("\0")), "nul_character")
    is_fine = fault.isNull()
    if nothing:
        is_fine = is_fine & ~F.trim(text).isin(*nothing)
    return F.when(is_fine, text), fault


def _of_text(text: Column, rule: str, rules: ValueRules) -> Column:
    """Return a text as a value of the rule. Null if it is unreadable."""
    if rule == "text":
        return text
    if rule == "id":
        may_be_number = F.contains(text, F.lit(".")) | F.contains(text, F.lit("+"))
        return F.when(may_be_number, _id_of_number(text)).otherwise(text)
    if rule == "time":
        return parsed_time(text, T.StringType(), rules.time_format)
    word = F.lower(F.trim(text))
    # Java would accept the suffixes of its own literals: 5d, 5f.
    number = F.when(~word.rlike("[0-9.][df]$"), word).try_cast("double")
    if rule == "number":
        return number
    flag = F.when(word.isin(*_TRUE), True).when(word.isin(*_FALSE), False)
    return F.coalesce(flag, _flag_of_number(number))


def _id_of_number(text: Column) -> Column:
    """Return an id with a point or an exponent as its digits. Null if some are lost."""
    double = F.when(text.rlike(_JAVA_DOUBLE), text).try_cast("double")
    return (
        F.when(text.rlike(_WHOLE), F.regexp_replace(text, r"\.0+$", ""))
        .when(text.rlike(_LOST_DIGITS), F.lit(None))
        .when(double.isNotNull(), _digits(double, T.DoubleType()))
        .otherwise(text)
    )


def _of_type(found: Column, kind: T.DataType, rule: str, rules: ValueRules) -> Column:
    """Return a number, boolean or time as a value of the rule. Null if unreadable."""
    if rule == "time":
        return parsed_time(found, kind, rules.time_format)
    if rule == "number":
        return found.cast("double")
    if rule == "flag":
        return found if isinstance(kind, T.BooleanType) else _flag_of_number(found.cast("double"))
    return _digits(found, kind)


def _flag_of_number(number: Column) -> Column:
    """Return whether a number is above 0. Null below 0 and for NaN."""
    return F.when(~F.isnan(number) & (number >= 0), number > 0)


def _digits(number: Column, kind: T.DataType) -> Column:
    """Return a whole number as digits; null for fractions and uncertain digits."""
    if isinstance(kind, T.IntegralType):
        return number.cast("string")
    if isinstance(kind, T.DecimalType):
        return F.when(F.floor(number) == number, F.floor(number).cast("string"))
    limit = _FLOAT_DIGITS if isinstance(kind, T.FloatType) else _DOUBLE_DIGITS
    is_certain = ~F.isnan(number) & (F.abs(number) <= limit) & (F.floor(number) == number)
    return F.when(is_certain, number).cast("bigint").cast("string")


def _of_array(found: Column, kind: T.ArrayType, rule: str) -> Read:
    """Return an array's first path, or its texts joined by blanks."""
    element = kind.elementType
    if isinstance(element, T.ArrayType):
        found = F.get(found, F.lit(0))
        element = element.elementType
    if isinstance(element, T.StructType):
        found = F.transform(found, lambda value: value["name"])
    texts = found.cast("array<string>")
    is_broken = F.exists(texts, lambda text: ~F.is_valid_utf8(text))
    fault = F.when(F.coalesce(is_broken, F.lit(False)), "not_utf8")
    texts = F.when(fault.isNull(), texts)
    return Read(F.array_join(texts, " ") if rule == "prose" else texts, fault)


def _possible_list(text: Column) -> Column:
    """Return a text that may be a written list, else null."""
    start = F.ltrim(text)
    return F.when(start.startswith("[") | start.startswith("{"), text)


def _of_prose(text: Column, found: Column, rule: str, rules: ValueRules) -> Column:
    """Return the value of a text with the list found in it. Null if the list is broken."""
    separator = rules.category_separator
    if rule == "prose":
        value = F.coalesce(F.array_join(found["texts"], " "), text)
    else:
        plain = F.split(text, f"\\Q{separator}\\E") if separator else F.array(text)
        value = F.coalesce(found["texts"], F.when(F.trim(text) != "", plain))
    return F.when(~F.coalesce(found["is_wrong"], F.lit(False)), value)


@F.pandas_udf(_LISTED)  # type: ignore[call-overload]
def _listed(texts: pd.Series) -> pd.DataFrame:
    """Return the result of `listed` for every text; null is no list."""
    found = [PLAIN if text is None else listed(text) for text in texts]
    return pd.DataFrame(found, columns=["texts", "is_wrong"])

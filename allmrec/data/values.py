"""Rules that read values of any type for the tables.

Imports and tables in place share them.
"""

from __future__ import annotations

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

    `rows` has the table's columns in types that `can_read`, and maybe `raw` (the row as JSON) and `problem`
    (the reader's reason to reject it). If a column is converted, both are in the result, and `problem` also
    names unreadable values (`unparsable_rating`, `not_utf8`, …). With `trusts_texts` strings are not checked
    in columns of strings.
    """
    values = []
    faults = []
    for column in TABLES[table].columns:
        name = column.name
        kind = rows.schema[name].dataType
        is_same = kind.simpleString() == column.type.simpleString()
        if is_same and (trusts_texts or not _holds_text(kind)):
            values.append(F.col(name))
        else:
            read = read_as(F.col(name), kind, RULES[name], reason_of(name), rules)
            values.append(read.value.alias(name))
            faults.append(read.fault)
    if not faults:
        return rows.select(*values, *(name for name in ("raw", "problem") if name in rows.columns))
    names = [column.name for column in TABLES[table].columns]
    raw = F.col("raw") if "raw" in rows.columns else json_object(*names)
    known = [F.col("problem")] if "problem" in rows.columns else []
    return rows.select(*values, raw.alias("raw"), F.coalesce(*known, *faults).alias("problem"))


def read_as(found: Column, kind: T.DataType, rule: str, reason: str, rules: ValueRules) -> Read:
    """Return a column as the rule reads it. `reason` is that of unreadable values.

    Raises ValueError for a type that the rule cannot read.
    """
    if not can_read(kind, rule):
        raise ValueError(f"{rule} is not read from {kind.simpleString()}")
    if isinstance(kind, T.NullType):
        return Read(F.lit(None).cast(TYPES[rule]), F.lit(None).cast("string"))
    if isinstance(kind, T.ArrayType):
        return _of_array(found, kind, rule)
    if isinstance(kind, T.StringType | T.BinaryType):
        # NaN is a number for a rating, outside of every range.
        nothing = [word for word in rules.null_words if rule != "number" or word.lower() != "nan"]
        text, fault = _text(found, rule, nothing)
        if rule in ("prose", "path"):
            value, is_wrong = _of_prose(text, rule, rules)
        else:
            value = _of_text(text, rule, rules)
            is_wrong = text.isNotNull() & (F.trim(text) != "") & value.isNull()
        return Read(value, F.coalesce(fault, F.when(is_wrong, reason)))
    value = _of_type(found, kind, rule, rules)
    is_there = found.isNotNull()
    if isinstance(kind, T.DoubleType | T.FloatType):
        is_there = is_there & ~F.isnan(found)
    return Read(value, F.when(is_there & value.isNull(), reason))


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


def _of_prose(text: Column, rule: str, rules: ValueRules) -> tuple[Column, Column]:
    """Return (value, is it wrong) of a text or written list."""
    may_be_list = F.ltrim(text).startswith("[") | F.ltrim(text).startswith("{")
    found = _listed(F.when(may_be_list, text))
    separator = rules.category_separator
    if rule == "prose":
        value = F.coalesce(F.array_join(found["texts"], " "), text)
    else:
        plain = F.split(text, f"\\Q{separator}\\E") if separator else F.array(text)
        value = F.coalesce(found["texts"], F.when(F.trim(text) != "", plain))
    is_wrong = F.coalesce(found["is_wrong"], F.lit(False))
    return F.when(~is_wrong, value), is_wrong


@F.pandas_udf(_LISTED)  # type: ignore[call-overload]
def _listed(texts: pd.Series) -> pd.DataFrame:
    """Return the result of `listed` for every text; null is no list."""
    found = [PLAIN if text is None else listed(text) for text in texts]
    return pd.DataFrame(found, columns=["texts", "is_wrong"])

"""How a value of any type becomes one of ours: the one set of rules, for imports and for tables in place."""

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
"""Above it a double does not hold every whole number; a float, above `_FLOAT_DIGITS`."""
_WHOLE = r"^-?(0|[1-9][0-9]*)\.0+$"
"""10.0, as pandas writes an integer of a column with a gap."""
_JAVA_DOUBLE = r"^-?[0-9]\.[0-9]+E[0-9]{1,2}$"
"""1.7850123E7, as Java writes a double."""
_LOST_DIGITS = r"^-?[0-9](\.[0-9]+)?[eE]\+[0-9]+$"
"""1.23457E+17: a spreadsheet's print, whose last digits are gone."""


_LISTED = T.StructType(
    [
        T.StructField("texts", T.ArrayType(T.StringType())),
        T.StructField("is_wrong", T.BooleanType()),
    ]
)
"""Spark's type of what `listed` returns."""


class Read(NamedTuple):
    """A column that was read as one of ours."""

    value: Column
    """In our type; null where there is nothing, and where it cannot be read."""
    fault: Column
    """The reason why a value cannot be read; null where it can, and where there is none."""


def can_read(kind: T.DataType, rule: str) -> bool:
    """Return whether values of a type can be read by a rule."""
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
    (the reason for which its reader rejects it). Where a column is read, both are in the result: then
    `problem` also says which value could not be read (`unparsable_rating`, `not_utf8`, …). With
    `trusts_texts` a string stays as it is where a string is wanted.
    """
    values, faults = [], []
    for column in TABLES[table].columns:
        kind, name = rows.schema[column.name].dataType, column.name
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
    """Return a column of a type that `can_read` as the rule says; `reason` is that of values it cannot read.

    Raises ValueError for another type.
    """
    if not can_read(kind, rule):
        raise ValueError(f"{rule} is not read from {kind.simpleString()}")
    if isinstance(kind, T.NullType):
        return Read(F.lit(None).cast(TYPES[rule]), F.lit(None).cast("string"))
    if isinstance(kind, T.ArrayType):
        return _of_array(found, kind, rule)
    if isinstance(kind, T.StringType | T.BinaryType):
        # NaN is a number for a rating: one that lies outside every range.
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
    """Return a column as it is written into `raw`: bytes as a text, and an id as it is read.

    So a user is found in rejected rows, too.
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
    """Return (text, reason). The text is null where it is a word for nothing, and where it is no text."""
    text = found.cast("string")
    fault = F.when(~F.is_valid_utf8(text), "not_utf8")
    if rule == "id":
        # Other texts are cleaned of it.
        fault = fault.when(F.contains(text, F.lit("\0")), "nul_character")
    is_fine = fault.isNull()
    if nothing:
        is_fine = is_fine & ~F.trim(text).isin(*nothing)
    return F.when(is_fine, text), fault


def _of_text(text: Column, rule: str, rules: ValueRules) -> Column:
    """Return a text as a value of ours; null where it cannot be read."""
    if rule == "text":
        return text
    if rule == "id":
        may_be_number = F.contains(text, F.lit(".")) | F.contains(text, F.lit("+"))
        return F.when(may_be_number, _id_of_number(text)).otherwise(text)
    if rule == "time":
        return parsed_time(text, T.StringType(), rules.time_format)
    word = F.lower(F.trim(text))
    # Java reads the suffixes of its own literals: 5d, 5f.
    number = F.when(~word.rlike("[0-9.][df]$"), word).try_cast("double")
    if rule == "number":
        return number
    flag = F.when(word.isin(*_TRUE), True).when(word.isin(*_FALSE), False)
    return F.coalesce(flag, _flag_of_number(number))


def _id_of_number(text: Column) -> Column:
    """Return an id that may be a number with a point or an exponent; null where its digits are lost."""
    double = F.when(text.rlike(_JAVA_DOUBLE), text).try_cast("double")
    return (
        F.when(text.rlike(_WHOLE), F.regexp_replace(text, r"\.0+$", ""))
        .when(text.rlike(_LOST_DIGITS), F.lit(None))
        .when(double.isNotNull(), _digits(double, T.DoubleType()))
        .otherwise(text)
    )


def _of_type(found: Column, kind: T.DataType, rule: str, rules: ValueRules) -> Column:
    """Return a number, a boolean or a time as a value of ours; null where it cannot be read."""
    if rule == "time":
        return parsed_time(found, kind, rules.time_format)
    if rule == "number":
        return found.cast("double")
    if rule == "flag":
        return found if isinstance(kind, T.BooleanType) else _flag_of_number(found.cast("double"))
    return _digits(found, kind)


def _flag_of_number(number: Column) -> Column:
    """Return whether a number is above 0; null where it is below, or none."""
    return F.when(~F.isnan(number) & (number >= 0), number > 0)


def _digits(number: Column, kind: T.DataType) -> Column:
    """Return a whole number as its digits; null where there is a fraction, or digits are not certain."""
    if isinstance(kind, T.IntegralType):
        return number.cast("string")
    if isinstance(kind, T.DecimalType):
        return F.when(F.floor(number) == number, F.floor(number).cast("string"))
    limit = _FLOAT_DIGITS if isinstance(kind, T.FloatType) else _DOUBLE_DIGITS
    is_certain = ~F.isnan(number) & (F.abs(number) <= limit) & (F.floor(number) == number)
    return F.when(is_certain, number).cast("bigint").cast("string")


def _of_array(found: Column, kind: T.ArrayType, rule: str) -> Read:
    """Return an array as the first path in it, or as its texts joined by a space."""
    element = kind.elementType
    if isinstance(element, T.ArrayType):
        found, element = F.get(found, F.lit(0)), element.elementType
    if isinstance(element, T.StructType):
        found = F.transform(found, lambda value: value["name"])
    texts = found.cast("array<string>")
    is_broken = F.exists(texts, lambda text: ~F.is_valid_utf8(text))
    fault = F.when(F.coalesce(is_broken, F.lit(False)), "not_utf8")
    texts = F.when(fault.isNull(), texts)
    return Read(F.array_join(texts, " ") if rule == "prose" else texts, fault)


def _of_prose(text: Column, rule: str, rules: ValueRules) -> tuple[Column, Column]:
    """Return (value, whether it is wrong) of a text that may be a list written out."""
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
    """Return what `listed` says of every text; null is plain."""
    found = [PLAIN if text is None else listed(text) for text in texts]
    return pd.DataFrame(found, columns=["texts", "is_wrong"])

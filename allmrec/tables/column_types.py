"""Types and columns that several tables have."""

from __future__ import annotations

from pyspark.sql import types as T

from allmrec.tables.specification import ColumnSpec

STRING = T.StringType()
DOUBLE = T.DoubleType()
LONG = T.LongType()
INT = T.IntegerType()
DATE = T.DateType()
TIME = T.TimestampType()
BOOLEAN = T.BooleanType()
STRINGS = T.ArrayType(STRING)
DOUBLES = T.ArrayType(DOUBLE)
INTS = T.ArrayType(INT)
TIMES = T.ArrayType(TIME)

USER_ID = ColumnSpec("user_id", STRING, "the user")

"""What Delta and Spark say about the state of a table, in words that say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from allmrec.errors import TableError

MAX_LINE_CHARACTERS = 300
"""How much of Delta's own line an error quotes."""
_LOG_GAPS = "half-written: its transaction log has gaps"
_MEANINGS = {
    "CHECK constraint EXPRESSION": "a row belongs to another run date",
    "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES": "a row breaks a constraint",
    "DELTA_NOT_NULL_CONSTRAINT_VIOLATED": "a row has no value where one must be",
    "NOT_NULL_CONSTRAINT_VIOLATION": "a row has no value where one must be",
    "DELTA_REPLACE_WHERE_MISMATCH": "a row belongs to another run date",
    "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE": "the rows to be written hold a key twice",
    "FAILED_READ_FILE.FILE_NOT_EXIST": "half-written: a data file that its log names is missing",
    "DELTA_TRUNCATED_TRANSACTION_LOG": _LOG_GAPS,
    "DELTA_VERSIONS_NOT_CONTIGUOUS": _LOG_GAPS,
    "DELTA_LOG_FILE_NOT_FOUND": _LOG_GAPS,
    "DELTA_NO_RECREATABLE_HISTORY_FOUND": _LOG_GAPS,
    "DELTA_STATE_RECOVER_ERROR": "half-written: its transaction log is damaged",
    "DELTA_SCHEMA_NOT_SET": "half-written: its transaction log has no schema",
    "MALFORMED_RECORD_IN_PARSING": "half-written: its transaction log is damaged",
    "No space left on device": "the disk is full",
}
"""Part of a message → what it means for a table. The first that a message contains counts."""


@contextmanager
def explained(table: str, path: str) -> Iterator[None]:
    """Raise TableError, in one line, where the block fails for a reason that lies in the table."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        message = str(error)
        for sign, meaning in _MEANINGS.items():
            if sign in message:
                raise TableError(f"{table}: {meaning}: {_line_with(sign, message)} ({path})") from error
        raise


def _line_with(sign: str, message: str) -> str:
    """Return the first line of a message that contains `sign`, shortened."""
    line = next(line for line in message.splitlines() if sign in line).strip()
    return line if len(line) <= MAX_LINE_CHARACTERS else line[: MAX_LINE_CHARACTERS - 3] + "..."

"""Errors, with the file's name, for files that Spark cannot read completely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from allmrec.errors import InputError
from allmrec.spark.troubles import as_user_error

_SIGNS_OF_DAMAGE = ("EOFException", "Unexpected end", "ZipException", "ZLIB", "not a gzip", "incorrect")
"""Parts of Spark's message about a truncated or damaged compressed file."""


@contextmanager
def reading(description: str) -> Iterator[None]:
    """Turn Spark's failure to read a file into an InputError.

    Its text has the name of the file, or else `description`. Raises InputError for such a failure, and for a
    file that a worker found broken; other errors of Spark pass through.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        message = str(error)
        if "FAILED_READ_FILE" in message or "EOFException" in message:
            raise _unreadable(message, description) from error
        raised = as_user_error(error)
        if isinstance(raised, InputError):
            raise raised from error
        raise


def _unreadable(message: str, description: str) -> InputError:
    marker = "reading file "
    name = message.split(marker, 1)[1].split()[0].rstrip(".") if marker in message else description
    is_damaged = any(sign in message for sign in _SIGNS_OF_DAMAGE)
    causes = [line.strip() for line in message.splitlines() if line.startswith("Caused by: ")]
    reason = (
        "it ends in the middle (truncated or damaged archive)"
        if is_damaged
        else (causes or message.splitlines())[-1].removeprefix("Caused by: ")[:300]
    )
    return InputError(
        f"{name.removeprefix('file://')}: cannot be read to its end: {reason}; "
        f"{'fetch it again, ' if is_damaged else ''}nothing was imported"
    )

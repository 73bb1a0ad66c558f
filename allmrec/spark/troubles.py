"""Errors of Delta, Spark and the disk: causes, and whether retries help."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark.errors import PySparkException

from allmrec import errors
from allmrec.errors import InputError, PassingError, SetupError, TableError, UserError
from allmrec.spark.secret_settings import without_secrets
from allmrec.spark.unnamed import is_passing, judged, telling_line

MAX_LINE_CHARACTERS = 300
"""How much of Delta's or Spark's own line an error quotes."""

CONFLICTS = (
    "DELTA_CONCURRENT_",
    "DELTA_METADATA_CHANGED",
    "DELTA_PROTOCOL_CHANGED",
    "ConcurrentAppendException",
    "ConcurrentDeleteReadException",
    "ConcurrentDeleteDeleteException",
    "ConcurrentTransactionException",
    "ConcurrentWriteException",
    "MetadataChangedException",
    "ProtocolChangedException",
)
"""Delta's errors if another commit came first. A retry on the new version may succeed."""
CREATIONS = (
    "DELTA_PATH_EXISTS",
    "DELTA_TABLE_ALREADY_EXISTS",
    "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION",
    "DELTA_TABLE_NOT_FOUND",
)
"""Delta's errors about a table that another run is just creating.

If a retry fails in the same way, when no other run can be creating the table, then it is permanent.
"""

_LOG_GAPS = "half-written: its transaction log has gaps; restore the missing files of its _delta_log"
_DAMAGED = "half-written: its transaction log is damaged; restore it"
_GONE = (
    "a data file of it is missing: the version that is read was vacuumed, or the file was deleted; "
    "--refresh reads the newest version; where that fails too, the table is half-written: restore it"
)
_NO_VERSION = "the version that is read is no longer in its history; --refresh reads the newest version"
_NO_ROOM = "the disk is full; free some space, then run the same command again"
_NO_RIGHT = "may not be written: the folder is read-only or belongs to somebody else; give it the right"
_NO_PYTHON = (
    "a worker cannot start its Python; name one that every machine has, and may run, by PYSPARK_PYTHON"
)
_OTHER_PYTHON = (
    "a worker's Python lacks a package, or is another version than the driver's; "
    "install allmrec[runtime] on every machine and name its Python by PYSPARK_PYTHON"
)
_MEANINGS: dict[str, tuple[type[UserError], str]] = {
    # Before the system's own messages, which these errors quote.
    "Cannot run program": (SetupError, _NO_PYTHON),
    "ModuleNotFoundError: No module named": (SetupError, _OTHER_PYTHON),
    "[PACKAGE_NOT_INSTALLED]": (SetupError, _OTHER_PYTHON),
    "[PYTHON_VERSION_MISMATCH]": (SetupError, _OTHER_PYTHON),
    "No space left on device": (PassingError, _NO_ROOM),
    "Permission denied": (SetupError, _NO_RIGHT),
    "Read-only file system": (SetupError, _NO_RIGHT),
    "AccessControlException": (SetupError, _NO_RIGHT),
    "Mkdirs failed to create": (SetupError, _NO_RIGHT),
    "DELTA_CANNOT_CREATE_LOG_PATH": (SetupError, _NO_RIGHT),
    "CHECK constraint EXPRESSION": (TableError, "a row belongs to another run date"),
    "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES": (TableError, "a row breaks a constraint"),
    "DELTA_NOT_NULL_CONSTRAINT_VIOLATED": (TableError, "a row lacks a required value"),
    "NOT_NULL_CONSTRAINT_VIOLATION": (TableError, "a row lacks a required value"),
    "DELTA_REPLACE_WHERE_MISMATCH": (TableError, "a row belongs to another run date"),
    "DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE": (
        TableError,
        "the rows to be written have a key twice",
    ),
    "[CAST_INVALID_INPUT]": (
        TableError,
        "a condition (tables.….where) or a view casts what it must try_cast",
    ),
    "[DATA_SOURCE_NOT_FOUND]": (TableError, "this Spark cannot read its format"),
    "is not a Parquet file": (TableError, "its files have another format"),
    "No FileSystem for scheme": (SetupError, "this Spark has no file system for its path"),
    "FAILED_READ_FILE.FILE_NOT_EXIST": (TableError, _GONE),
    "DELTA_FILE_NOT_FOUND": (TableError, _GONE),
    "DELTA_VERSION_NOT_FOUND": (TableError, _NO_VERSION),
    "DELTA_TRUNCATED_TRANSACTION_LOG": (TableError, _LOG_GAPS),
    "DELTA_VERSIONS_NOT_CONTIGUOUS": (TableError, _LOG_GAPS),
    "DELTA_LOG_FILE_NOT_FOUND": (TableError, _LOG_GAPS),
    "DELTA_NO_RECREATABLE_HISTORY_FOUND": (TableError, _LOG_GAPS),
    "DELTA_STATE_RECOVER_ERROR": (TableError, _DAMAGED),
    "DELTA_SCHEMA_NOT_SET": (TableError, "half-written: its transaction log has no schema; restore it"),
    "MALFORMED_RECORD_IN_PARSING": (TableError, _DAMAGED),
    **dict.fromkeys(CONFLICTS, (PassingError, "another run wrote to it at the same time; try again")),
    **dict.fromkeys(CREATIONS, (TableError, "no Delta table of ours; expected one, or an empty folder")),
}
"""Part of a message → its meaning for a table. The first part that a message contains counts."""

_WRONG_PATH = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EINVAL, errno.EILSEQ, errno.ENOTEMPTY, errno.ENXIO, errno.ENODEV),
}
"""Errors of the system about a path that a retry does not mend."""
_FROM_WORKER = re.compile(r"^allmrec\.errors\.(\w+): (.+)$", re.MULTILINE)
"""The last line of a Python worker's traceback, if the worker raised an error of this package."""
_LOST_CALL = re.compile(r"^An error occurred while calling \S+$|does not exist in the JVM")
"""py4j's messages if the JVM ended during a call, and about every class after that."""
_TABLE_IN_PATH = re.compile(r"([^/\s:'\"]+)/(?:_delta_log|[^/\s]+=[^/\s]+|part-)")


@contextmanager
def explained(table: str, path: str) -> Iterator[None]:
    """Raise UserError where the block fails because of table or disk."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        known = _known(error)
        if known is None:
            raise
        kind, meaning, line = known
        raise kind(without_secrets(f"{table}: {meaning}: {line} ({path})")) from error


def is_conflict(error: BaseException) -> bool:
    """Return whether Delta refused a commit because another one came first."""
    return isinstance(error, PySparkException | Py4JJavaError) and any(
        sign in str(error) for sign in (*CONFLICTS, *CREATIONS)
    )


def as_user_error(error: BaseException) -> UserError | None:
    """Return an error of Spark, Delta or the disk as one line.

    Errors without an entry here are judged by Spark's own fields (`allmrec.spark.unnamed`).
    """
    if isinstance(error, UserError):
        return error
    try:
        found = _as_user_error(error)
    except (Py4JError, ConnectionError):
        # Reading the text of a Java exception needs the JVM.
        found = _jvm_ended()
    return type(found)(without_secrets(str(found))) if found else None


def _as_user_error(error: BaseException) -> UserError | None:
    if _says_that_the_jvm_ended(error):
        return _jvm_ended()
    if isinstance(error, OSError):
        return _of_the_disk(error)
    if not isinstance(error, PySparkException | Py4JError):
        return None
    known = _known(error)
    return judged(error) if known is None else _with_table(*known)


def _jvm_ended() -> PassingError:
    return PassingError("Spark's JVM has ended (killed, or out of memory); run the same command again")


def first_line(error: BaseException) -> str:
    """Return an error in one line, shortened, never empty."""
    return without_secrets(telling_line(error))[:MAX_LINE_CHARACTERS].rstrip(";")


def _says_that_the_jvm_ended(error: BaseException) -> bool:
    """Return whether the connection to the JVM is lost. Py4j then finds no classes."""
    if isinstance(error, Py4JNetworkError | ConnectionError):
        return True
    # A lost call has no trace of a Java exception.
    return isinstance(error, Py4JError) and _LOST_CALL.search(str(error)) is not None


def _known(error: BaseException) -> tuple[type[UserError], str, str] | None:
    """Return (class, meaning, line) of a known error. A worker's own error has no meaning."""
    message = str(error)
    raised = _FROM_WORKER.findall(message)
    if raised and hasattr(errors, raised[-1][0]):
        return getattr(errors, raised[-1][0]), "", raised[-1][1].strip()
    for sign, (kind, meaning) in _MEANINGS.items():
        if sign in message:
            return kind, meaning, _line_with(sign, message)
    return None


def _with_table(kind: type[UserError], meaning: str, line: str) -> UserError:
    """Return a known error in one line, with the table's name."""
    table = _TABLE_IN_PATH.search(line)
    said = f"{meaning}: {line}" if meaning else line
    return kind(f"{table.group(1)}: {said}" if table else said)


def _of_the_disk(error: OSError) -> UserError:
    """Return the user error for a failed file operation of this process."""
    where = error.filename or "unknown file"
    problem = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PassingError(f"No space left on the disk ({where}): {_NO_ROOM}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SetupError(f"{where}: {_NO_RIGHT}")
    if error.errno in _WRONG_PATH:
        return InputError(f"{where}: {problem}; check the path")
    if error.errno is None and not is_passing(problem):
        return SetupError(without_secrets(" ".join(problem.split())))
    return PassingError(f"{where}: {' '.join(problem.split())}; run the same command again")


def _line_with(sign: str, message: str) -> str:
    """Return the first line of a message that contains `sign`, shortened."""
    line = next(line for line in message.splitlines() if sign in line).strip()
    line = line.removeprefix(": ").removeprefix("Caused by: ")
    return line if len(line) <= MAX_LINE_CHARACTERS else line[: MAX_LINE_CHARACTERS - 3] + "..."

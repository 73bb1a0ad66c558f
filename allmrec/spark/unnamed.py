"""Errors of Spark without an entry of their own."""

from __future__ import annotations

import re

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.errors.exceptions import base

from allmrec.errors import InputError, PassingError, SetupError, UserError

MAX_CHARACTERS = 400
"""How much of a line of Spark an error quotes."""
_STATE = re.compile(r"\bSQLSTATE: ([0-9A-Z]{5})\b")
_PASSING_STATES = ("08", "2D", "40", "53", "57", "58")
"""Classes of SQLSTATE for connections, conflicts, resources, operators and systems."""
_OPEN_STATES = ("38", "KD", "XX")
"""Classes for functions of the user, data sources and internal errors: their causes decide."""


def _one_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_PASSING = _one_of(
    # Processes.
    "ExecutorLost|[Ll]ost executor|[Ee]xecutor lost|FetchFailed|Container killed",
    r"Python worker (exited|failed|crashed|did not)|SparkContext was shut down|stopped SparkContext",
    r"[Cc]ancell?ed (as|because)|[Jj]ob \S+ cancelled|Interrupted(IO)?Exception",
    # Memory.
    "OutOfMemoryError|MemoryError|GC overhead|native thread|Cannot allocate memory",
    "CUDA (error|out of memory)",
    # Network.
    "Connect(ion)?Exception|Connection (refused|reset|closed|timed out)|[Cc]ould ?n[o']t connect|Broken pipe",
    r"[Tt]imed out|Timeout(Exception|Error)|Socket(Exception|Timeout)|SSL\w*Exception|ClosedChannel",
    "UnknownHost|NoRouteToHost|name resolution|Max retries exceeded",
    # Storage.
    "Service ?Unavailable|Slow ?Down|[Tt]hrottl|Too Many Requests|StandbyException|SafeMode|Retriable",
    r"BlockMissing|Could not obtain block|could only be \w+ to|Too many open files",
    "Stale file handle|Input/output error|Disk quota exceeded",
)
"""Messages about lost processes, memory, network and storage."""
_MISSING_JAR = _one_of(
    "ClassNotFoundException|NoClassDefFoundError|NoSuchMethodError|NoSuchFieldError|AbstractMethodError",
    "UnsupportedClassVersionError|IncompatibleClassChangeError|ServiceConfigurationError",
    r"py4j\.Py4JException: (Method|Constructor)",
)
_REFUSED_ACCESS = _one_of(
    "Access ?Denied|Forbidden|Unauthorized|[Ss]tatus [Cc]ode: 40[13]|InvalidAccessKeyId",
    "SignatureDoesNotMatch|NoAuthWithAWSException|NoAwsCredentials|AuthenticationException|Kerberos",
)
_PERMANENT = _one_of(
    "(IllegalArgument|NumberFormat|Arithmetic|UnsupportedOperation|ClassCast|IndexOutOfBounds)Exception",
    "(NoSuchElement|DateTime|URISyntax|CharacterCoding|MalformedInput|VersionNotFound)Exception|MatchError",
    r"(NoSuchFile|FileNotFound|NotDirectory|FileAlreadyExists|IsDirectory|InvalidPath|PathIsNot\w+)Exception",
    r"(Zip|EOF|Decoding|Corrupt\w*|ColumnConvertNotSupported|Analysis|Parse|Parser|Json\w+)Exception",
)
"""Exceptions that the same input raises again."""
_PERMANENT_KINDS = (
    base.AnalysisException,
    base.ArithmeticException,
    base.ArrayIndexOutOfBoundsException,
    base.DateTimeException,
    base.IllegalArgumentException,
    base.SparkNoSuchElementException,
    base.SparkUpgradeException,
    base.UnsupportedOperationException,
)
_CONDITION = re.compile(r"\[[A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*\] .*")
"""An error of Spark or Delta with its name, such as `[PATH_NOT_FOUND] Path does not exist: …`."""
_AGAIN = "run the same command again"
_MEND = "the same command fails again until that is mended"


def judged(error: BaseException) -> UserError | None:
    """Return an error of Spark as one of one line. None for a defect in a program.

    A retry helps only after lost processes, conflicts, and faults of memory, network and storage. An error
    with no other content than a failed task or call is retried too.
    """
    said = _said(error)
    line = telling_line(error)
    state = _sql_state(error, said)
    if isinstance(error, base.PySparkImportError) or _is_decided(state, "46"):
        return SetupError(f"Spark: {line}; {_MEND}")
    if state and not state.startswith((*_PASSING_STATES, *_OPEN_STATES)):
        return InputError(f"Spark: {line}; {_MEND}")
    if is_passing(said) or _is_decided(state, *_PASSING_STATES):
        return PassingError(f"Spark: {line}; {_AGAIN}")
    if _MISSING_JAR.search(said):
        return SetupError(
            f"Spark: {line}; a JAR is missing or of another version: check spark.jars, spark.jars.packages "
            "and ALLMREC_JARS"
        )
    if _REFUSED_ACCESS.search(said):
        return SetupError(f"Spark: {line}; check the rights and credentials for it")
    if isinstance(error, _PERMANENT_KINDS) or _is_decided(state, "KD") or _PERMANENT.search(said):
        return InputError(f"Spark: {line}; {_MEND}")
    if _is_defect(error, state):
        return None
    return PassingError(f"Spark: {line}; {_AGAIN}")


def is_passing(text: str) -> bool:
    """Return whether a text is about lost processes, memory, network or storage."""
    return _PASSING.search(text) is not None


def telling_line(error: BaseException) -> str:
    """Return an error in one line: the failure and its root cause."""
    lines = _lines(_said(error))
    if isinstance(error, base.PythonException):
        # The traceback of the worker ends with the raised error.
        return _shortened(_lines(str(error))[-1])
    named = next((found.group() for line in lines if (found := _CONDITION.search(line))), "")
    first = named or next((line for line in lines if not line.startswith("An error occurred while")), "")
    root = next((line for line in reversed(lines) if line.startswith("Caused by: ")), "")
    root = root.removeprefix("Caused by: ").strip()
    told = f"{_shortened(first)} ({_shortened(root)})" if root and root not in first else _shortened(first)
    return told or type(error).__name__


def _said(error: BaseException) -> str:
    """Return the messages of an error and its causes, without stack frames."""
    text = f"{error}\n{getattr(error, '_stackTrace', None) or ''}"
    return "\n".join(line for line in text.splitlines() if not re.match(r"\s+(at |\.\.\. \d+ more)", line))


def _sql_state(error: BaseException, said: str) -> str:
    """Return the SQLSTATE of an error or of its text, or ""."""
    quoted = _STATE.search(said)
    if quoted or not isinstance(error, PySparkException):
        return quoted.group(1) if quoted else ""
    try:
        # The messages of Delta's errors lack the state.
        return error.getSqlState() or ""
    except Py4JError:
        return ""


def _is_decided(state: str, *classes: str) -> bool:
    return bool(classes) and state.startswith(classes)


def _is_defect(error: BaseException, state: str) -> bool:
    """Return whether Python code failed, or Spark is inconsistent."""
    in_python = (base.PythonException, ValueError, TypeError, KeyError, IndexError, AttributeError)
    return isinstance(error, in_python) or state == "XX000"


def _lines(text: str) -> list[str]:
    """Return the lines of an error, without blank ones and py4j's frame."""
    lines = (line.strip().removeprefix(": ").rstrip(" ;") for line in text.splitlines())
    return [line for line in lines if line]


def _shortened(line: str) -> str:
    return line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]}…"

"""What pyspark and py4j print although the error that is raised says enough: of an ended JVM, of bad SQL."""

from __future__ import annotations

import logging
import sys
from typing import Any

from pyspark.accumulators import AccumulatorServer
from pyspark.logger import PySparkLogger

_OF_PY4J = "Exception while sending command."


def say_it_once() -> None:
    """Keep the libraries' tracebacks about an ended JVM off the screen; what they raise is unchanged."""
    logging.getLogger().addFilter(_is_news)
    # What it says of a condition in SQL that cannot be read is in the error, too.
    PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    AccumulatorServer.handle_error = _handle_error  # type: ignore[method-assign, assignment]


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line of the root logger is not py4j's about a lost connection."""
    return record.msg != _OF_PY4J


def _handle_error(server: AccumulatorServer, request: Any, client_address: Any) -> None:
    """Say nothing where the connection of the accumulators ended with the JVM; else what Python says."""
    if not isinstance(sys.exc_info()[1], EOFError | OSError):
        super(AccumulatorServer, server).handle_error(request, client_address)

"""Suppresses what pyspark and py4j print about a lost JVM or query.

The raised error contains it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from pyspark.accumulators import AccumulatorServer
from pyspark.logger import PySparkLogger

_OF_PY4J = "Exception while sending command."
_OF_PYSPARK = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")
"""Loggers that print a line of JSON with a stack trace for every error in a query."""


def say_it_once() -> None:
    """Keep the libraries' tracebacks off the screen; their exceptions are unchanged."""
    logging.getLogger().addFilter(_is_news)
    for logger in _OF_PYSPARK:
        PySparkLogger.getLogger(logger).setLevel(logging.CRITICAL)
    AccumulatorServer.handle_error = _handle_error  # type: ignore[method-assign, assignment]


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for py4j's line about a lost connection."""
    return record.msg != _OF_PY4J


def _handle_error(server: AccumulatorServer, request: Any, client_address: Any) -> None:
    """Print Python's report, unless the connection ended with the JVM."""
    if not isinstance(sys.exc_info()[1], EOFError | OSError):
        super(AccumulatorServer, server).handle_error(request, client_address)

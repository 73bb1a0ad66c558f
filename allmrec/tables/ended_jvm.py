"""Suppresses what pyspark and py4j print about a lost JVM and a bad query. The raised error says it."""

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
    """Keep the libraries' tracebacks off the screen; what they raise is unchanged."""
    logging.getLogger().addFilter(_is_news)
    for logger in _OF_PYSPARK:
        PySparkLogger.getLogger(logger).setLevel(logging.CRITICAL)
    AccumulatorServer.handle_error = _handle_error  # type: ignore[method-assign, assignment]


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a line of the root logger is not py4j's about a lost connection."""
    return record.msg != _OF_PY4J


def _handle_error(server: AccumulatorServer, request: Any, client_address: Any) -> None:
    """Say nothing where the connection of the accumulators ended with the JVM; else what Python says."""
    if not isinstance(sys.exc_info()[1], EOFError | OSError):
        super(AccumulatorServer, server).handle_error(request, client_address)

"""Standard error in lines of JSON, of libraries too (`reporting.json_lines`)."""

from __future__ import annotations

import atexit
import io
import json
import re
from typing import TextIO

from allmrec.reporting import Report


class JsonStream(io.TextIOBase):
    """A stream that writes every line of text as a JSON object.

    In place of standard error it also converts warnings and tracebacks of libraries.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._report = Report(self._put, as_json=True)
        self._begun = ""
        atexit.register(self.close)

    def writable(self) -> bool:
        """Return true."""
        return True

    def write(self, text: str) -> int:
        """Write the lines that end in `text`. Keep the rest for the next call."""
        *lines, self._begun = re.split(r"[\r\n]", self._begun + text)
        for line in lines:
            self._write_line(line)
        return len(text)

    def flush(self) -> None:
        """Flush the stream below, without the line that has not ended."""
        self._stream.flush()

    def close(self) -> None:
        """Write the line that has not ended. The stream below stays open."""
        self.write("\n")
        self.flush()

    def _write_line(self, line: str) -> None:
        if _is_json_object(line):
            self._put(line)
        elif line.strip():
            self._report(line)

    def _put(self, line: str) -> None:
        self._stream.write(f"{line}\n")


def _is_json_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False

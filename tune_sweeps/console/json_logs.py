"""Write log records as JSON lines that say which sweep, trial and tutor they belong to."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonLines(logging.Handler):
    """Write each record as one JSON object to standard error, which Ray and the driver send to files.

    Attributes:
        context: What every record of this process carries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.context: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            sys.stderr.write(self.line(record) + "\n")
        except Exception:
            self.handleError(record)

    def line(self, record: logging.LogRecord) -> str:
        """Return one record as JSON."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **self.context,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


_handler = JsonLines()


def bind(**context: str) -> None:
    """Have all later records of this process, those of libraries included, carry ``context`` and nothing else."""
    _handler.context = context
    logging.getLogger().addHandler(_handler)  # once: a second time changes nothing

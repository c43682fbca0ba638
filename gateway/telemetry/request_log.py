"""One log line a request: its client, its outcome, and how long each part took.

Text and audio are never in it, unless the operator asks for the text's beginning; probes of health
and metrics are told at the level `debug` alone.
"""

from __future__ import annotations

import logging
import os
import re
import time

from gateway.errors import outcome_of_status
from gateway.telemetry.logging import NO_REQUEST, REQUEST_ID, escaped
from gateway.telemetry.request_record import RequestRecord

logger = logging.getLogger("gateway.request")

SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SHOWN_PATH_CHARACTERS = 128
PROBE_PATHS = {"/", "/health", "/ready", "/metrics"}
STATUS_GONE = 499  # nginx' word for a client that left before its answer
# What the log records of all requests have in common.
_ENTRY = vars(logger.makeRecord(logger.name, logging.INFO, "", 0, "request", (), None))


def name_request(given: str) -> str:
    """Set the request id of the current task: the client's own if it is harmless, else a new one.

    Args:
        given: The client's `x-request-id`; may be empty.
    """
    request_id = given if SAFE_REQUEST_ID.fullmatch(given) else f"req_{os.urandom(16).hex()}"
    REQUEST_ID.set(request_id)  # never reset: the task ends with the request
    return request_id


def log_request(method: str, path: str, record: RequestRecord, seconds: float) -> None:
    """Write the line of a request that has ended.

    Args:
        method: Of the request.
        path: Of the request, as the client sent it.
        record: What was gathered of it.
        seconds: How long it took.
    """
    level = logging.DEBUG if path in PROBE_PATHS else logging.INFO
    if not logger.isEnabledFor(level):
        return
    if record.outcome is None:
        record.outcome = outcome_of_status(record.status) if record.status else "cancelled"
    record.key = record.key or NO_REQUEST
    record.status = record.status or STATUS_GONE
    # As `logger.log` makes it, which would look for the caller's line and more that nothing shows.
    entry = logging.LogRecord.__new__(logging.LogRecord)
    now = time.time()
    entry.__dict__ = {**_ENTRY, "created": now, "msecs": now % 1 * 1000}
    entry.levelno, entry.levelname = level, logging.getLevelName(level)
    where = {"method": method, "path": escaped(path[:SHOWN_PATH_CHARACTERS])}
    entry.fields = {**where, **vars(record), "total_seconds": seconds}
    logger.callHandlers(entry)

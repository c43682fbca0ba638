"""How log lines look: one format for the gateway, its HTTP server and its engine, on stderr.

Texts and audio never reach a log line; uvicorn's access log is off.
"""

from __future__ import annotations

import logging
from typing import Any

# uvicorn calls an ASGI application that stops before the last body chunk an error; here it is the
# way to abort a connection, and the gateway has said why already.
ABORT_MESSAGE = "ASGI callable returned without completing response."


class AbortFilter(logging.Filter):
    """Drops uvicorn's line about an answer that the gateway aborted on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every other line."""
        return record.msg != ABORT_MESSAGE


def log_config(level: str) -> dict[str, Any]:
    """Configuration for `logging.config.dictConfig`.

    Args:
        level: Least severity that is shown.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"abort": {"()": AbortFilter}},
        "formatters": {
            "console": {
                "format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s",
                "datefmt": "%Y-%m-%dT%H:%M:%S%z",
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "console",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "gateway": {"level": level.upper()},
            "uvicorn": {"level": level.upper()},
            "uvicorn.error": {"filters": ["abort"]},
        },
    }

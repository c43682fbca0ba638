"""How log lines look: one format for the gateway, its HTTP server and its engine, on stderr.

Whatever stands in a message, it cannot end the line or pass for another one: control characters
are written as escapes, and every line of a traceback is marked as part of its own entry.
"""

from __future__ import annotations

import json
import logging
import re
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

# uvicorn calls an ASGI application that stops before the last body chunk an error; here it is the
# way to abort a connection, and the gateway has said why already.
ABORT_MESSAGE = "ASGI callable returned without completing response."
NO_REQUEST = "-"
MARK = "    | "

# The request that the current task serves; every task that it starts inherits it.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default=NO_REQUEST)

# C0, DEL, C1 (a terminal obeys them), line and paragraph separators, marks that turn the direction
# of what follows, and halves of surrogate pairs (they cannot be written as UTF-8).
_PLAIN_WORD = re.compile("[!#-<>-~]+")  # ASCII without white space, `"` and `=`
_NEEDS_QUOTES = re.compile(r'[\s"=]')
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""A text on one line: what could end the line or fool a terminal as `\x0a` or `\u2028`."""
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"  # noqa: PLR2004


def _is_no_abort(record: logging.LogRecord) -> bool:
    """A filter that drops uvicorn's line about an answer that the gateway aborted on purpose."""
    return record.msg != ABORT_MESSAGE


class ConsoleFormatter(logging.Formatter):
    """Lines for people: time, level, logger, message, `name=value` of the fields, request id."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback's below it."""
        line = _head(int(record.created), record.levelname, record.name, record.getMessage())
        if fields := getattr(record, "fields", {}):
            told = [_word(value) if isinstance(value, str) else value for value in fields.values()]
            line += _layout(tuple(fields), tuple(map(type, told))) % tuple(told)
        request_id = REQUEST_ID.get()
        if request_id != NO_REQUEST:
            line += f" id={request_id}"
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line = "\n".join([line, *[MARK + escaped(each) for each in trace.split("\n")]])
        return line


@lru_cache(maxsize=16)  # in one second, most lines begin alike
def _head(seconds: int, level: str, logger: str, message: str) -> str:
    """The beginning of a line: a Unix time as people read it, and what is said by whom."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return f"{when} {level:7} {logger}: {escaped(message)}"


@lru_cache(maxsize=256)  # requests of one kind tell the same fields
def _layout(names: tuple[str, ...], types: tuple[type, ...]) -> str:
    """The `name=value` of fields, to be filled by `%`."""
    return "".join(
        "%.0s" if kind is type(None) else f" {name}=%.3f" if kind is float else f" {name}=%s"
        for name, kind in zip(names, types, strict=True)
    )


@lru_cache(maxsize=256)  # most fields have the same few values in every line
def _word(text: str) -> str:
    """A field's value as one word."""
    if _PLAIN_WORD.fullmatch(text):
        return text
    text = escaped(text)
    return json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) or not text else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Name to value; `request_id` where there is a request, `exception` where one was met."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if REQUEST_ID.get() != NO_REQUEST:
            entry["request_id"] = REQUEST_ID.get()
        for name, value in getattr(record, "fields", {}).items():
            if value is not None:
                entry[name] = round(value, 6) if isinstance(value, float) else value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)  # ASCII: no separator of lines is left in it


FORMATTERS = {"console": ConsoleFormatter, "json": JsonFormatter}

# What no line of these shows need not be looked up for each (logging HOWTO, "Optimization").
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_config(level: str, log_format: str = "console") -> dict[str, Any]:
    """Configuration for `logging.config.dictConfig`.

    Args:
        level: Least severity that is shown.
        log_format: `console` or `json`.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {log_format: {"()": FORMATTERS[log_format]}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": log_format,
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "gateway": {"level": level.upper()},
            "uvicorn": {"level": level.upper()},
            "uvicorn.error": {"filters": [_is_no_abort]},
        },
    }

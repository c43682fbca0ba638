"""Log lines: one a request, complete, harmless, and silent about what was said."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from gateway.access.policy import SPEECH
from gateway.api.error_bodies import OPENAI
from gateway.api.routes import Route, RouteTable
from gateway.telemetry.logging import ConsoleFormatter, JsonFormatter, escaped, log_config
from loadtest.processes import running_serve, wait_until
from tests.running import running_gateway
from tests.sockets import exchange, post, statuses

HELLO = {"model": "tts-1", "input": "Hello.", "voice": "mabel", "response_format": "pcm"}
SPOKEN = "Nobody may read this sentence in a log, not even by halves."


class Heard(logging.Handler):
    """Keeps what is logged, as JSON objects."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.entries: list[dict[str, Any]] = []

    def listen(self) -> None:
        """Hear everything, once a gateway has configured its logs."""
        logger = logging.getLogger("gateway")
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.entries.append(json.loads(self.format(record)))

    def of(self, request_id: str) -> list[dict[str, Any]]:
        """The entries of a request."""
        return [entry for entry in self.entries if entry.get("request_id") == request_id]

    def line_of(self, request_id: str) -> dict[str, Any]:
        """The one line about a request, as soon as it is there."""
        lines = wait_until(
            lambda: [e for e in self.of(request_id) if e["message"] == "request"],
            "it ends",
            15,
        )
        assert len(lines) == 1
        entry = lines[0]
        assert isinstance(entry, dict)
        return entry


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the gateway's loggers say from `listen` on."""
    handler = Heard()
    try:
        yield handler
    finally:
        logging.getLogger("gateway").removeHandler(handler)


def speak(
    url: str, request_id: str, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    """Ask for speech under an id."""
    body = {
        "model": "tts-1",
        "input": SPOKEN,
        "voice": "belinda",
        "response_format": "pcm",
        **fields,
    }
    headers = {"x-request-id": request_id, **(headers or {})}
    return httpx.post(url + "/v1/audio/speech", json=body, headers=headers, timeout=120)


def test_a_request_is_one_line_that_tells_all_but_what_was_said(engine: str, heard: Heard) -> None:
    """Who, what came of it, how long each part took."""
    with running_gateway(upstreams=engine) as gateway:
        heard.listen()
        answer = speak(gateway.url, "one")
        entry = heard.line_of("one")
    assert answer.headers["x-request-id"] == "one"
    assert {name: entry[name] for name in ("level", "surface", "status", "outcome")} == {
        "level": "info",
        "surface": "openai",
        "status": 200,
        "outcome": "ok",
    }
    assert entry["path"] == "/v1/audio/speech"
    assert entry["characters"] == len(SPOKEN)
    assert entry["voice"] == "belinda"
    assert entry["response_format"] == "pcm"
    assert entry["upstream"] == engine
    assert entry["audio_seconds"] == pytest.approx(len(answer.content) / 48_000)
    assert 0 <= entry["queue_wait_seconds"] <= entry["first_audio_seconds"]
    assert entry["first_audio_seconds"] <= entry["first_byte_seconds"] <= entry["total_seconds"]
    assert "text" not in entry
    assert "sentence" not in json.dumps(heard.entries)


def test_the_text_is_shown_only_if_the_operator_wants_it(engine: str, heard: Heard) -> None:
    """And then its first 200 characters, which cannot end the line."""
    with running_gateway(upstreams=engine, log_text=True) as gateway:
        heard.listen()
        speak(gateway.url, "shown", input="First line.\nSecond line. " + "More. " * 100)
        text = heard.line_of("shown")["text"]
    assert text.startswith(r"First line.\x0aSecond line. More.")
    assert len(text) == 200 + len(r"\x0a") - 1


def test_failures_are_told_with_their_outcome_under_the_same_id(engine: str, heard: Heard) -> None:
    """Whoever has the id from the answer's header finds the reason."""
    with running_gateway(upstreams=engine, api_keys="alice=sg-alice-0123456789") as gateway:
        heard.listen()
        key = {"Authorization": "Bearer sg-alice-0123456789"}
        assert speak(gateway.url, "stranger").status_code == 401
        assert speak(gateway.url, "wrong", voice="nobody", headers=key).status_code == 404
        with pytest.raises(httpx.RemoteProtocolError):
            speak(gateway.url, "cut", input=SPOKEN * 3 + " fault-cut-200000", headers=key)
        stranger, wrong, cut = (heard.line_of(name) for name in ("stranger", "wrong", "cut"))
    assert (stranger["outcome"], stranger["status"], stranger["key"]) == ("unauthorised", 401, "-")
    assert (wrong["outcome"], wrong["status"], wrong["key"]) == ("invalid", 404, "alice")
    assert (cut["outcome"], cut["status"]) == ("truncated", 200)
    assert [entry["message"][:14] for entry in heard.of("cut")] == ["answer aborted", "request"]
    assert "sg-alice" not in json.dumps(heard.entries)


def test_a_pipelined_request_is_not_logged_under_the_name_of_the_one_before(
    engine: str, heard: Heard
) -> None:
    """Nothing that was known of one request is known of the next one of its connection."""
    key = "sg-alice-0123456789"
    with running_gateway(upstreams=engine, api_keys=f"alice={key}") as gateway:
        heard.listen()
        first = post(HELLO, f"Authorization: Bearer {key}", "X-Request-Id: first")
        second = post(HELLO, "X-Request-Id: second", "Connection: close")
        assert statuses(exchange(gateway.url, first + second)) == [200, 401]
        assert heard.line_of("first")["key"] == "alice"
        line = heard.line_of("second")
    assert line["key"] == "-"
    assert not {"voice", "characters", "upstream"} & line.keys()


def test_probes_of_health_and_metrics_do_not_fill_the_log(engine: str, heard: Heard) -> None:
    """A balancer asks twice a second."""
    with running_gateway(upstreams=engine) as gateway:
        heard.listen()
        for path in ("/health", "/ready", "/metrics", "/"):
            httpx.get(gateway.url + path, headers={"x-request-id": "probe"})
        httpx.get(gateway.url + "/v1/models", headers={"x-request-id": "models"})
        assert heard.line_of("models")["level"] == "info"
        assert {entry["level"] for entry in heard.of("probe")} == {"debug"}


@pytest.mark.parametrize("given_id", ["two words", "a" * 65, "semi;colon", "", "täglich"])
def test_an_id_that_could_do_harm_is_replaced(engine: str, given_id: str) -> None:
    """Only letters, digits, dot, dash and underscore, 64 at most."""
    with running_gateway(upstreams=engine, ready=False) as gateway:
        headers = {"x-request-id": given_id.encode()}
        answer = httpx.get(gateway.url + "/health", headers=headers)  # type: ignore[arg-type]
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


def test_an_unforeseen_error_is_logged_once_with_its_traceback_and_the_id(
    engine: str, heard: Heard
) -> None:
    """The client hears nothing of it but that it happened, and the id."""

    async def broken(request: object) -> JSONResponse:
        raise RuntimeError(f"a bug\nthat met {type(request).__name__}")

    with running_gateway(upstreams=engine) as gateway:
        heard.listen()
        route = Route("GET", "/broken", broken, OPENAI, SPEECH, "Fail")
        gateway._app._dispatcher._routes = RouteTable([route])
        answer = httpx.get(gateway.url + "/broken", headers={"x-request-id": "bug"})
        entries = wait_until(
            lambda: len(heard.of("bug")) == 2 and heard.of("bug"), "both lines", 15
        )
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "bug"
    assert "a bug" not in answer.text
    assert [e["message"] for e in entries] == ["internal error", "request"]
    assert "RuntimeError: a bug" in entries[0]["exception"]
    assert "exception" not in entries[1]


def formatted(formatter: logging.Formatter, text: str, field: str) -> str:
    """A line about a failure, as a handler writes it."""
    record = logging.LogRecord("gateway.test", logging.ERROR, "f", 1, "it: %s", (text,), None)
    record.fields = {"voice": field}
    try:
        raise RuntimeError(text)
    except RuntimeError:
        record.exc_info = sys.exc_info()
    return formatter.format(record)


@given(st.text(), st.text())
def test_no_text_can_pass_for_a_line_of_its_own(text: str, field: str) -> None:
    """Whatever is in it: newlines, escapes of a terminal, marks that turn the direction."""
    line = formatted(JsonFormatter(), text, field)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert json.loads(line)["voice"] == field
    first, *rest = formatted(ConsoleFormatter(), text, field).splitlines()
    assert "gateway.test" in first
    assert all(part.startswith("    | ") for part in rest)
    assert escaped(first) == first


def test_forged_lines_stay_inside_of_their_own() -> None:
    """The classic: a line break and what looks like an entry."""
    forged = "x\n2026-01-01T00:00:00+0000 INFO    gateway: all is well\x1b[2J"
    line = formatted(ConsoleFormatter(), forged, "v").splitlines()[0]
    assert r"it: x\x0a2026-01-01T00:00:00+0000 INFO" in line
    assert r"\x1b[2J" in line


def test_the_format_is_a_setting(engine: str, tmp_path: Path) -> None:
    """GATEWAY_LOG_FORMAT=json makes every line an object, also uvicorn's."""
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        running_serve(upstreams=engine, log_format="json", stderr=file) as serve,
    ):
        speak(serve.url, "mine")
        assert serve.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (mine,) = [line for line in lines if line.get("request_id") == "mine"]
    assert mine["characters"] == len(SPOKEN)
    assert {"gateway.serve", "uvicorn.error", "gateway.request"} <= {e["logger"] for e in lines}
    assert SPOKEN not in log.read_text()


def test_the_configuration_has_both_formats() -> None:
    """An unknown one is a mistake, not a silent default."""
    assert set(log_config("info", "json")["formatters"]) == {"json"}
    assert set(log_config("info")["formatters"]) == {"console"}
    with pytest.raises(KeyError):
        log_config("info", "xml")

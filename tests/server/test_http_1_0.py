"""HTTP/1.0, which nginx speaks by default: streams without chunks, aborts by reset."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.asking import TEXT, VOICE, plan_faults
from tests.running import Gateway, wait_until

PCM = expected_pcm(TEXT, VOICE)
SAY = {"input": TEXT, "voice": VOICE, "model": "tts-1", "response_format": "pcm"}


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """An engine whose answers last for a while."""
    return ("--tokens-per-second", "400")


def ask(gateway: Gateway, path: str, **body: Any) -> tuple[bytes, bytes, bool]:
    """Ask in HTTP/1.0: head and body of the answer, and whether a reset ended it."""
    host, port = gateway.url.removeprefix("http://").split(":")
    said = json.dumps(body).encode()
    answer, was_reset = b"", False
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(
            b"POST %b HTTP/1.0\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(said), said)
        )
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:
            was_reset = True
    head, _, content = answer.partition(b"\r\n\r\n")
    return head.lower(), content, was_reset


@pytest.mark.parametrize(
    ("path", "body", "begins"),
    [
        ("/v1/audio/speech", SAY, b""),
        ("/audio/speech/stream", {"model": "tts-1", "input": TEXT, "voice": VOICE}, b"RIFF"),
        ("/tts", {"text": TEXT, "predefined_voice_id": VOICE, "stream": True}, b"RIFF"),
        ("/generate", {"text": TEXT, "voice": VOICE, "stream": True}, b"RIFF"),
    ],
)
def test_a_stream_has_no_chunks_and_ends_with_the_connection(
    gateway: Gateway, path: str, body: dict[str, Any], begins: bytes
) -> None:
    """On every surface; nothing of the audio is missing and no chunk's size is in it."""
    head, content, was_reset = ask(gateway, path, **body)
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert content.startswith(begins)
    assert content[44 if begins else 0 :] == PCM
    assert not was_reset


def test_events_come_without_chunks_too(gateway: Gateway) -> None:
    """The first line is an event, not a size."""
    _, content, _ = ask(gateway, "/v1/audio/speech", **SAY, stream_format="sse")
    assert content.startswith(b'data: {"type":"speech.audio.delta"')
    assert b'"speech.audio.done"' in content


def test_what_is_whole_has_its_length(gateway: Gateway) -> None:
    """Asked for as a whole, and an error."""
    head, content, _ = ask(gateway, "/v1/audio/speech", **SAY, stream=False)
    assert b"content-length: %d" % len(PCM) in head
    assert content == PCM
    head, content, was_reset = ask(gateway, "/v1/audio/speech", **{**SAY, "voice": "nobody"})
    assert head.startswith(b"http/1.1 404")
    assert json.loads(content)["error"]["code"] == "voice_not_found"
    assert not was_reset


def test_an_answer_that_breaks_off_is_reset(gateway: Gateway, engine: str) -> None:
    """A mere end would pass for a whole answer."""
    plan_faults(engine, "cut-48000", match="striking")
    head, content, was_reset = ask(gateway, "/v1/audio/speech", **SAY)
    assert head.startswith(b"http/1.1 200")
    assert len(content) < len(PCM)
    assert was_reset


def test_a_client_that_leaves_is_no_error(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is closed already, and takes no option any more."""
    host, port = gateway.url.removeprefix("http://").split(":")
    said = json.dumps({**SAY, "input": 20 * TEXT}).encode()
    left = gateway.metric("gateway_requests_total", surface="openai", outcome="cancelled")
    with socket.create_connection((host, int(port)), 30) as connection:
        head = b"POST /v1/audio/speech HTTP/1.0\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(said), said))
        assert connection.recv(65536)
    wait_until(
        lambda: (
            gateway.metric("gateway_requests_total", surface="openai", outcome="cancelled") > left
            and not gateway.connections
        ),
        "the gateway has noticed",
    )
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []

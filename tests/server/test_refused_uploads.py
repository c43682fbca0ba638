"""Uploads that are refused and never end: each is answered once, and its connection closed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.asking import KEY
from tests.running import Gateway, wait_until
from tests.sockets import connected, statuses

MAX_BODY_BYTES = 4096
LONGEST_SECONDS = 30.0  # far above every bound of the gateway's own
ALLOWED = f"Authorization: Bearer {KEY}"
SPEECH, VOICES = "/v1/audio/speech", "/voices"
JSON, FORM = "Content-Type: application/json", "Content-Type: multipart/form-data; boundary=b"
CHUNKED, ENDLESS = "Transfer-Encoding: chunked", "Content-Length: 1000000000"
CHUNK = b"3e8\r\n" + b" " * 1000 + b"\r\n"
CASES = {
    "no key, chunked": (401, SPEECH, (JSON, CHUNKED)),
    "no key, declared": (401, SPEECH, (JSON, ENDLESS)),
    "no such path": (404, "/v1/nothing", (ALLOWED, JSON, CHUNKED)),
    "too large, chunked": (413, SPEECH, (ALLOWED, JSON, CHUNKED)),
    "too large, declared": (413, SPEECH, (ALLOWED, JSON, ENDLESS)),
    "too large, legacy": (413, "/generate", (ALLOWED, JSON, CHUNKED)),
    "another type": (415, SPEECH, (ALLOWED, "Content-Type: text/plain", CHUNKED)),
    "a recording without a key": (401, VOICES, (FORM, CHUNKED)),
}


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """One key, small bodies, and patience with slow ones: only the refusal bounds an upload."""
    return {
        "api_keys": f"alice={KEY}",
        "max_body_bytes": MAX_BODY_BYTES,
        "body_timeout_seconds": 600,
    }


def upload(url: str, path: str, lines: tuple[str, ...]) -> tuple[bytes, float]:
    """Send a body without end until the gateway closes.

    Returns:
        All that it answered, and after how many seconds the connection ended.
    """
    head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: gateway", *lines, "", ""]).encode()
    more, got = CHUNK if CHUNKED in lines else CHUNK[5:-2], b""
    began = time.monotonic()
    with connected(url) as connection:
        connection.sendall(head + more * 8)
        connection.settimeout(0.02)
        while time.monotonic() - began < LONGEST_SECONDS:
            try:
                data = connection.recv(65536)
                if not data:
                    break
                got += data
            except TimeoutError:
                pass
            except OSError:  # reset: it was told long before
                break
            try:
                connection.sendall(more)
            except TimeoutError:
                pass
            except OSError:
                break
    return got, time.monotonic() - began


def test_a_refused_upload_that_never_ends_is_ended_for_it(gateway: Gateway) -> None:
    """Whoever goes on sending holds its connection for seconds, not for ever."""
    with ThreadPoolExecutor(len(CASES)) as threads:
        runs = {
            name: threads.submit(upload, gateway.url, path, lines)
            for name, (_, path, lines) in CASES.items()
        }
        ended = {name: run.result() for name, run in runs.items()}
    for name, (status, _, _) in CASES.items():
        answer, seconds = ended[name]
        assert statuses(answer) == [status], name
        assert seconds < LONGEST_SECONDS, name
    wait_until(lambda: not gateway.connections, "no connection is left", 15)
    assert gateway.crowd.held_bytes == 0

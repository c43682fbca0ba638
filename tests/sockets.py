"""Requests as bytes on a socket, for what no HTTP library would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

PATIENCE_SECONDS = 20.0


@contextmanager
def connected(url: str, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """A connection to a gateway.

    Args:
        url: Its base address.
        receive_bytes: Size of the kernel's receive buffer, small for a slow reader.
    """
    parts = urlsplit(url)
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_SECONDS)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect((parts.hostname, parts.port))
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the gateway closes; raises TimeoutError if it never does."""
    got = bytearray()
    with suppress(ConnectionResetError, BrokenPipeError):
        while data := connection.recv(65536):
            got += data
    return bytes(got)


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes up to a mark, or to the end."""
    got = bytearray()
    while mark not in got and (data := connection.recv(65536)):
        got += data
    return bytes(got)


def exchange(url: str, data: bytes) -> bytes:
    """Send something and read to the end of the connection."""
    with connected(url) as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(data)
        return read_to_end(connection)


def statuses(answer: bytes) -> list[int]:
    """The status of every answer among some bytes."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3] != b"100"]


def get(path: str = "/health", *headers: str, version: str = "1.1") -> bytes:
    """A GET request."""
    lines = [f"GET {path} HTTP/{version}", "Host: gateway", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(
    body: bytes | dict[str, Any], *headers: str, path: str = "/v1/audio/speech", length: bool = True
) -> bytes:
    """A POST request.

    Args:
        body: Its body, or the object that it holds as JSON.
        headers: Further header lines.
        path: Its target.
        length: Whether to say the body's length.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", *headers]
    if not any(line.lower().startswith("content-type:") for line in headers):
        lines.append("Content-Type: application/json")
    if length:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data

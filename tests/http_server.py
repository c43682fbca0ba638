"""A small real HTTP server whose answers a test chooses, for upstreams that no engine imitates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came.

    Attributes:
        method: GET or POST.
        path: Its target.
        headers: By lower-case name.
        body: Its bytes.
        port: The client's, one for each connection.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; its Content-Length is told unless a header frames it."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Server:
    """A server that runs.

    Attributes:
        url: Its base address.
        seen: The requests that came, in order.
    """

    url: str
    seen: list[Seen] = field(default_factory=list)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients of these tests reset their connections on purpose."""


def always(reply: Reply) -> Callable[[Seen], Reply]:
    """The same answer to every request."""
    return lambda _: reply


@contextmanager
def answering(reply: Callable[[Seen], Reply]) -> Iterator[Server]:
    """Serve on a loopback port; `reply` makes each answer, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            request = Seen(self.command, self.path, headers, body, self.client_address[1])
            server.seen.append(request)
            answer = reply(request)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if not {"Content-Length", "Transfer-Encoding"} & answer.headers.keys():
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            try:
                self.wfile.write(answer.body)
            except OSError:  # the client has had enough
                self.close_connection = True

        do_GET = do_POST = handle_any  # noqa: N815  (names of http.server)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            del format, args

    listener = _Listener(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()

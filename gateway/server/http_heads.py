"""Which request heads are refused: a pure function, and its bounds.

Refused is what two readers (a proxy and this server) could take for different requests although
the parser accepts it, and what is larger than any honest client sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024  # nginx takes 4 x 8 KiB, Node.js 16 KiB: no honest client comes near
HEADERS = 100  # Apache's LimitRequestFields


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused before it reaches the application.

    Attributes:
        status: HTTP status of the answer.
        message: Words for the client.
    """

    status: int
    message: str


INVALID = Refusal(400, "Invalid HTTP request received.")
HEAD_TOO_LARGE = Refusal(431, "The request's head is too large.")
TOO_MANY_HEADERS = Refusal(431, f"The request has more than {HEADERS} headers.")


def header_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """The first header of a name (lower case); nothing where there is none."""
    for each, given in headers:
        if each == name:
            return given.decode("latin-1")
    return ""


def check_head(version: str, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
    """Look at a complete head.

    Args:
        version: Of HTTP, as the parser read it.
        headers: Names in lower case, with their values.

    Returns:
        Why it is refused, or None for a good one.
    """
    if version not in {"1.0", "1.1"}:
        return Refusal(400, "The gateway speaks HTTP/1.1.")
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return Refusal(400, "The request must name its host once.")  # RFC 9112, 3.2
    if b"transfer-encoding" not in names:
        return None
    if version == "1.0":
        return Refusal(400, "HTTP/1.0 has no transfer codings.")  # RFC 9112, 6.1
    if header_of(headers, b"transfer-encoding").lower() != "chunked":
        return Refusal(400, "The only transfer coding is 'chunked'.")
    return None

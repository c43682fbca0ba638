"""What comes from this very machine, and what only looks so.

A peer's address is not enough: a reverse proxy's clients and a web page in a local browser come
from the loopback address too.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

# Headers of requests that somebody passes on, or that a web page makes a browser send.
_FOREIGN_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin")


def is_local(scope: Scope) -> bool:
    """Whether a request comes from a program on this machine.

    One that a proxy passes on does not, nor one that a web page makes a browser here send: those
    have forwarding headers, an `Origin`, or ask for another host's name.
    """
    headers = Headers(scope=scope)
    if any(name in headers for name in _FOREIGN_HEADERS):
        return False
    try:
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:
        return False
    peer = (scope.get("client") or ("", 0))[0]
    return is_loopback(peer) and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, reached from nowhere else."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback

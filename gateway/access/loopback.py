"""Addresses of this machine, and requests that come from a web page of another origin."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

# Pages of this machine, whatever their port; what CORS allows where there are no keys.
LOCAL_ORIGINS = r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?"


def is_cross_origin(headers: Headers, hosts: Collection[str] = ()) -> bool:
    """Whether a request may come from a web page of another origin.

    Browsers tell the page's origin in `Origin` or `Sec-Fetch-Site`. A page whose own name was made
    to resolve to this machine (DNS rebinding) is of the same origin for its browser, but asks for
    that name: a `Host` must therefore be an address, a loopback name or one of `hosts`.

    Args:
        headers: The request's.
        hosts: Further names of this machine, in lower case.
    """
    host = headers.get("host", "")
    try:
        name = (urlsplit("//" + host).hostname or "").rstrip(".")
    except ValueError:
        return True
    if not (_address(name) or is_loopback(name) or name in hosts):
        return True
    site = headers.get("sec-fetch-site")  # the browser's own word
    if site == "same-origin":  # even where a proxy has taken the port from the Host
        return False
    origin = headers.get("origin")
    return site not in {None, "none"} or (
        origin is not None and origin.lower().partition("://")[2] != host.lower()
    )


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """A host that is written as an address, which needs no name server to be reached."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, reached from nowhere else."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    address = _address(host)
    return address is not None and (getattr(address, "ipv4_mapped", None) or address).is_loopback

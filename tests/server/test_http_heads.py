"""Which heads are refused, as a table."""

from __future__ import annotations

import pytest

from gateway.server.http_heads import check_head

HOST = (b"host", b"gateway")
CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", [HOST], None),
        ("1.0", [], None),
        ("1.0", [HOST], None),
        ("1.1", [HOST, CHUNKED], None),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")], None),
        ("2.0", [HOST], 400),
        ("0.9", [], 400),
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.0", [HOST, HOST], 400),
        ("1.1", [HOST, (b"host", b"another")], 400),
        ("1.0", [HOST, CHUNKED], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"identity"), CHUNKED], 400),
    ],
)
def test_a_head_that_two_readers_could_read_differently_is_refused(
    version: str, headers: list[tuple[bytes, bytes]], status: int | None
) -> None:
    """Request smuggling needs such a head."""
    refusal = check_head(version, headers)
    assert (refusal.status if refusal else None) == status

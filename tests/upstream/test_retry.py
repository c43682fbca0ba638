"""When a failed attempt is made again: a pure decision, tested as a table."""

from __future__ import annotations

import pytest

from gateway.errors import (
    EncodingError,
    GatewayError,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.upstream.retry import History, TooShort, pause_before_retry


@pytest.mark.parametrize(
    ("error", "history", "upstreams", "pause"),
    [
        # another upstream is tried at once
        (UpstreamUnreachable("x"), History(attempts=1), 2, 0.0),
        (UpstreamTimeout("x"), History(attempts=1, timeouts=1), 2, 0.0),
        # the same one after a pause that grows
        (UpstreamUnreachable("x"), History(attempts=1), 1, 0.1),
        (UpstreamUnreachable("x"), History(attempts=2), 1, 0.2),
        (UpstreamProtocolError("x"), History(attempts=2), 2, 0.1),
        # and not for ever
        (UpstreamUnreachable("x"), History(attempts=3), 1, None),
        (UpstreamUnreachable("x"), History(attempts=3), 5, 0.0),
        (UpstreamUnreachable("x"), History(attempts=5), 5, None),
        # a hang costs the whole timeout: twice at most
        (UpstreamTimeout("x"), History(attempts=2, timeouts=2), 5, None),
        # audio too short for its text: once more, anywhere
        (TooShort("x"), History(attempts=1, too_short=1), 1, 0.0),
        (TooShort("x"), History(attempts=2, too_short=2), 5, None),
        # what the request itself caused would fail again
        (UpstreamRejected("x"), History(attempts=1), 2, None),
        (EncodingError("x"), History(attempts=1), 2, None),
    ],
)
def test_pause_before_retry(
    error: GatewayError, history: History, upstreams: int, pause: float | None
) -> None:
    """Retries are few, go elsewhere first, and never repeat what cannot succeed."""
    assert pause_before_retry(error, history, upstreams) == pause

"""When a failed attempt is made again, and with which bound: pure decisions, tested as tables."""

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
from gateway.upstream.dialect import PROFILES, Generation, Sampling
from gateway.upstream.pool import Upstream
from gateway.upstream.retry import LEAST_ROOM_TOKENS, History, TooShort, fitted, pause_before_retry


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


@pytest.mark.parametrize(
    ("text", "told_tokens", "learnt_tokens", "bound_tokens"),
    [
        ("Hello.", 96, None, 400 - 96),  # what the gateway supposes of a prompt
        ("Hello.", 0, 200, 400 - 200 - 6),  # what the engine has told of this voice, and the text
        ("Grüße.", 0, 200, 400 - 200 - 8),  # a token a byte at most
        ("Hello.", 300, 200, 400 - 300),  # the larger of both
        ("Hello.", 0, 390, LEAST_ROOM_TOKENS),  # the engine shall say itself that nothing fits
        ("Hello.", 0, 30, 350),  # all that was asked for
    ],
)
def test_a_generation_fits_beside_its_prompt(
    text: str, told_tokens: int, learnt_tokens: int | None, bound_tokens: int
) -> None:
    """An engine refuses what its context does not hold."""
    upstream = Upstream("http://a", context_tokens=400)
    if learnt_tokens is not None:
        upstream.prompt_tokens["mabel"] = learnt_tokens
    asked = Generation(
        text, "mabel", None, (), Sampling(), 350, PROFILES["standard"], prompt_tokens=told_tokens
    )
    assert fitted(asked, upstream).max_tokens == bound_tokens

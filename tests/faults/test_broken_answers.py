"""Answers that end too early, in pieces or too late: a client must be able to tell each of them."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import engine_state
from loadtest.prose import prose
from tests.asking import ABORTED, PAGE, TEXT, VOICE, WHOLE, Asked, listen, plan_faults, say
from tests.running import Gateway, running_gateway, wait_until

# Its end at 7.3 s comes long behind the first audio, on the edge of an audio token, and below what
# PAGE can honestly take: nothing but its length tells it.
EARLY = "truncate-349440"
BOUND_SECONDS = 1.5  # of a whole request: time enough for a first audio on a busy machine


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Short patience with the engine."""
    return {"first_audio_timeout_seconds": 2, "idle_timeout_seconds": 2}


@pytest.fixture(autouse=True)
def nothing_is_left(gateway: Gateway, engine: str) -> Iterator[None]:
    """Each test leaves an idle engine that has no fault planned."""
    yield
    plan_faults(engine)
    wait_until(lambda: engine_state(engine)["running"] == 0, "nothing runs")
    wait_until(lambda: gateway.runtime.pool.ready, "the upstream is ready")


def ended(gateway: Gateway, outcome: str) -> float:
    """Requests that ended so."""
    return gateway.metric("gateway_requests_total", surface="openai", outcome=outcome)


@pytest.mark.parametrize("scene", [None, "a quiet hall"])
@pytest.mark.parametrize("response_format", ["pcm", "wav", "opus"])
def test_a_stream_that_the_engine_ends_far_too_early_is_aborted(
    gateway: Gateway, engine: str, response_format: str, scene: str | None
) -> None:
    """The engine ends it in good order; the gateway must not."""
    fields: dict[str, Any] = {"response_format": response_format}
    if scene is not None:
        fields["instructions"] = scene
    before = ended(gateway, "truncated")
    plan_faults(engine, EARLY)
    ending, heard = listen(gateway, PAGE, **fields)
    assert ending == ABORTED
    assert heard
    if response_format == "pcm":
        assert len(heard) <= 349_440
        assert expected_pcm(PAGE, VOICE if scene is None else "").startswith(heard)
    wait_until(lambda: ended(gateway, "truncated") == before + 1, "it is counted")


def test_a_whole_answer_that_the_engine_ends_far_too_early_is_made_again(
    gateway: Gateway, engine: str
) -> None:
    """Nothing was sent yet."""
    plan_faults(engine, EARLY)
    answer = say(gateway, PAGE, stream=False)
    assert answer.status_code == 200
    assert answer.content == expected_pcm(PAGE, VOICE)


def test_a_later_segment_that_ends_far_too_early_is_made_again(
    gateway: Gateway, engine: str
) -> None:
    """Nothing of it was heard yet."""
    text = prose(500)
    whole = say(gateway, text).content
    with Asked(engine) as asked:
        plan_faults(engine, "slow", "slow", EARLY)
        assert listen(gateway, text) == (WHOLE, whole)
    texts = [body["input"] for body in asked.bodies]
    assert len(texts) == len(set(texts)) + 1


def events(data: bytes) -> list[dict[str, Any]]:
    """Server-sent events, each of them complete."""
    assert data.endswith(b"\n\n")
    return [json.loads(event.removeprefix(b"data: ")) for event in data[:-2].split(b"\n\n")]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("cut-960000", "upstream_protocol_error"),
        ("raiselate-960000", "upstream_protocol_error"),
        ("stall-960000", "upstream_timeout"),
        (EARLY, "upstream_audio_too_short"),
    ],
)
def test_events_that_break_end_with_an_error_event_and_an_abort(
    gateway: Gateway, engine: str, fault: str, code: str
) -> None:
    """A client that reads events and one that looks at the connection both learn of it."""
    before = ended(gateway, "truncated")
    # After a stall the next warm-up comes at once: it would take the fault that is planned.
    wait_until(lambda: not any(u.suspect for u in gateway.runtime.pool.upstreams), "all are well")
    plan_faults(engine, fault)
    ending, data = listen(gateway, PAGE, stream_format="sse")
    assert ending == ABORTED
    *deltas, last = events(data)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    heard = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert heard
    assert expected_pcm(PAGE, VOICE).startswith(heard)
    assert last["type"] == "error"
    assert (last["error"]["code"], last["error"]["type"]) == (code, "server_error")
    assert last["error"]["message"]
    wait_until(lambda: ended(gateway, "truncated") == before + 1, "it is counted")


def test_events_that_never_begin_are_an_honest_status(gateway: Gateway, engine: str) -> None:
    """An error event behind a 200 would be a success to most clients."""
    plan_faults(engine, always="raise")
    answer = say(gateway, stream_format="sse")
    assert answer.status_code == 502
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["error"]["code"] == "upstream_protocol_error"


@pytest.fixture(scope="module")
def hasty(engine: str) -> Iterator[Gateway]:
    """A gateway that bounds the whole request, and waits long for everything else."""
    with running_gateway(
        upstreams=engine,
        request_timeout_seconds=BOUND_SECONDS,
        first_audio_timeout_seconds=600,
        idle_timeout_seconds=600,
    ) as running:
        yield running


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_that_takes_too_long_before_its_audio_is_a_504(
    hasty: Gateway, engine: str, *, stream: bool
) -> None:
    """The engine would be waited for, but the request as a whole has its bound."""
    plan_faults(engine, "hang")
    answer = say(hasty, stream=stream)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "upstream_timeout"
    assert "whole request" in answer.json()["error"]["message"]
    wait_until(lambda: engine_state(engine)["running"] == 0, "the engine is free", 15)
    assert hasty.runtime.service.in_flight == 0


@pytest.mark.parametrize("text", [PAGE, prose(500)], ids=["short", "long"])
def test_a_request_that_takes_too_long_behind_its_first_audio_is_aborted(
    hasty: Gateway, engine: str, text: str
) -> None:
    """One generation or many: the bound is the request's, not the generation's."""
    plan_faults(engine, *["stall-240000"] * 12)
    before = ended(hasty, "truncated")
    ending, heard = listen(hasty, text)
    assert ending == ABORTED
    assert heard
    plan_faults(engine)
    assert say(hasty, stream=False).content == expected_pcm(TEXT, VOICE)
    wait_until(lambda: engine_state(engine)["running"] == 0, "the engine is free", 15)
    assert ended(hasty, "truncated") == before + 1


def test_a_text_twice_as_long_may_take_twice_the_time(hasty: Gateway, engine: str) -> None:
    """Each 4,096 characters have the request's time anew."""
    plan_faults(engine, always="hang")
    for parts, characters in ((1, 4095), (2, 4097)):
        text = prose(900)[:characters]
        began = time.monotonic()
        assert say(hasty, text).status_code == 504
        assert time.monotonic() - began >= parts * BOUND_SECONDS


def test_an_abort_tells_http_clients_of_every_kind(gateway: Gateway, engine: str) -> None:
    """No last chunk follows what was sent: a reader of the bare socket sees the end missing."""
    plan_faults(engine, EARLY)
    body = {"model": "tts-1", "input": PAGE, "voice": VOICE, "response_format": "pcm"}
    url = gateway.url + "/v1/audio/speech"
    with httpx.stream("POST", url, json=body, timeout=120) as answer:
        parts = answer.iter_raw()
        assert next(parts)
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            list(itertools.chain(parts))

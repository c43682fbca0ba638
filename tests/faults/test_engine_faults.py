"""Every way in which the engine misbehaves, and what the client gets of it.

The simulator misbehaves as docs/contract.md says the container does; the answers are judged byte
for byte: complete and correct, or an honest failure.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import engine_state
from tests.asking import PAGE, TEXT, plan_faults, say
from tests.running import Gateway, running_engine, running_gateway, wait_until

FAST = ("--voice", "simulated", "--tokens-per-second", "2000")


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Short patience."""
    return {
        "first_audio_timeout_seconds": 3,
        "idle_timeout_seconds": 3,
        "slowest_tokens_per_second": 1000,
        "quiet_limit_seconds": 2,
    }


BEFORE_AUDIO = ["hang", "reset", "raise", "empty", "error", "cut", "truncate-1920"]


@pytest.mark.parametrize("scene", [None, "a quiet hall"])
@pytest.mark.parametrize("fault", BEFORE_AUDIO)
def test_a_failure_before_the_first_audio_is_repaired(
    gateway: Gateway, engine: str, fault: str, scene: str | None
) -> None:
    """Nothing was sent yet: the client gets whole, correct audio, on either of the routes."""
    plan_faults(engine, fault, match=TEXT)
    fields: dict[str, Any] = {} if scene is None else {"instructions": scene}
    if fault.startswith("truncate"):
        # Only its end tells a cut answer; a stream waits for that no longer than milliseconds,
        # and is aborted where it comes later.
        fields["stream"] = False
    answer = say(gateway, **fields)
    assert answer.status_code == 200
    voice = "mabel" if scene is None else ""
    assert answer.content == expected_pcm(TEXT, voice)
    wait_until(lambda: engine_state(engine)["running"] == 0, "nothing is left running", 15)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("hang", 504, "upstream_timeout"),
        ("reset", 503, "no_healthy_upstream"),
        ("raise", 502, "upstream_protocol_error"),
        ("empty", 502, "upstream_protocol_error"),
        ("error", 502, "upstream_protocol_error"),
        ("truncate-1920", 502, "upstream_audio_too_short"),
    ],
)
def test_a_failure_that_stays_is_an_honest_status(
    gateway: Gateway, engine: str, fault: str, status: int, code: str
) -> None:
    """Never 200 with error text, silence or nothing."""
    # As above: a stream waits milliseconds for the end that tells a cut answer, a whole one for it.
    fields: dict[str, Any] = {"stream": False} if fault.startswith("truncate") else {}
    answer = say(gateway, f"fault-{fault} {TEXT}", **fields)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"]
    wait_until(lambda: engine_state(engine)["running"] == 0, "nothing is left running", 15)
    wait_until(lambda: gateway.runtime.pool.ready, "the upstream is back", 15)


# Far more audio than the gateway reads at once stands before these: the first of it has been sent.
@pytest.mark.parametrize("response_format", ["pcm", "wav", "mp3"])
@pytest.mark.parametrize(
    "fault", ["cut-960000", "raiselate-960000", "raiselate-960001", "stall-960000"]
)
def test_a_failure_after_the_first_audio_aborts_the_connection(
    gateway: Gateway, engine: str, fault: str, response_format: str
) -> None:
    """No client may take half an answer for a whole one."""
    truncated = gateway.metric("gateway_requests_total", surface="openai", outcome="truncated")
    with pytest.raises(httpx.RemoteProtocolError):
        say(gateway, f"fault-{fault} {PAGE}", response_format=response_format)
    wait_until(
        lambda: (
            gateway.metric("gateway_requests_total", surface="openai", outcome="truncated")
            == truncated + 1
        ),
        "it is counted",
    )
    wait_until(lambda: engine_state(engine)["running"] == 0, "nothing is left running", 15)


def test_error_text_never_reaches_a_client(gateway: Gateway, engine: str) -> None:
    """What was sent before the abort is honest audio to the last byte."""
    plan_faults(engine, "raiselate-960001", match=PAGE)
    got = bytearray()

    def listen() -> None:
        body = {"model": "tts-1", "input": PAGE, "voice": "mabel", "response_format": "pcm"}
        with httpx.stream("POST", gateway.url + "/v1/audio/speech", json=body) as answer:
            for data in answer.iter_raw():
                got.extend(data)

    with pytest.raises(httpx.RemoteProtocolError):
        listen()
    assert len(got) > 30_000
    assert b"error" not in got
    assert expected_pcm(PAGE, "mabel").startswith(bytes(got))


@pytest.mark.parametrize(
    "fault", ["cut-60000", "raiselate-60001", "stall-60000", "truncate-1920", "hang"]
)
def test_a_buffered_answer_is_repaired_at_any_point(
    gateway: Gateway, engine: str, fault: str
) -> None:
    """Nothing was sent: the generation is made again and the client never knows."""
    plan_faults(engine, fault, match=TEXT)
    answer = say(gateway, stream=False)
    assert answer.status_code == 200
    assert answer.content == expected_pcm(TEXT, "mabel")


def test_a_runaway_is_ended_cleanly_and_counted(gateway: Gateway, engine: str) -> None:
    """A model that misses its end would talk for five minutes."""
    before = gateway.metric("gateway_runaway_total", reason="too_long")
    plan_faults(engine, "runaway", match=TEXT)
    answer = say(gateway)
    seconds = len(answer.content) / 48_000
    assert 20 < seconds < 60
    assert gateway.metric("gateway_runaway_total", reason="too_long") == before + 1
    assert engine_state(engine)["running"] == 0


def test_endless_silence_is_ended_and_counted(gateway: Gateway, engine: str) -> None:
    """A model that falls silent is stopped after a few seconds, and frees its GPU."""
    before = gateway.metric("gateway_runaway_total", reason="silence")
    plan_faults(engine, "quiet-96000", match=TEXT)
    answer = say(gateway)
    assert answer.status_code == 200
    assert 96_000 <= len(answer.content) < 96_000 + 48_000 * 2.5
    assert gateway.metric("gateway_runaway_total", reason="silence") == before + 1
    wait_until(lambda: engine_state(engine)["running"] == 0, "the engine is free", 15)


def test_slow_headers_within_the_timeout_are_waited_for(gateway: Gateway, engine: str) -> None:
    """Slow is not broken."""
    plan_faults(engine, "slow-200", match=TEXT)
    assert say(gateway).content == expected_pcm(TEXT, "mabel")


@pytest.mark.parametrize("listed", [{"no": "list"}, [], "text", [1, 2]])
def test_an_engine_whose_lists_are_wrong_is_never_ready(listed: Any) -> None:
    """A voice that cannot be checked cannot be promised."""
    with running_engine(*FAST) as supervisor:
        httpx.post(supervisor.address + "/simulator/faults", json={"voices": listed})
        with running_gateway(upstreams=supervisor.address, ready=False) as running:
            wait_until(
                lambda: engine_state(supervisor.address)["voice_lists"] >= 2, "it was asked", 15
            )
            assert httpx.get(running.url + "/ready").status_code == 503
            answer = say(running)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert int(answer.headers["retry-after-ms"]) > 0
            assert httpx.get(running.url + "/health").status_code == 200


def test_health_alone_does_not_make_an_engine_ready() -> None:
    """The container's /health stays 200 while its engine hangs: only audio counts."""
    with running_engine(*FAST, "--fault", "hang") as supervisor:
        assert httpx.get(supervisor.address + "/health").status_code == 200
        with running_gateway(upstreams=supervisor.address, ready=False) as running:
            wait_until(
                lambda: engine_state(supervisor.address)["running"] == 1, "the warm-up hangs", 15
            )
            assert httpx.get(running.url + "/ready").status_code == 503


def test_the_warm_up_is_neither_a_request_nor_audio() -> None:
    """Counters tell of clients alone."""
    with (
        running_engine(*FAST) as supervisor,
        running_gateway(upstreams=supervisor.address) as running,
    ):
        assert engine_state(supervisor.address)["finished"] >= 1
        assert running.runtime.metrics.sums().get("gateway_requests_total:ok", 0) == 0
        assert running.runtime.metrics.sums().get("gateway_audio_tokens_total", 0) == 0


def test_a_wrong_api_key_is_told_and_a_right_one_works() -> None:
    """The engine's key is the operator's matter, not the client's."""
    with running_engine(*FAST, "--api-key", "k") as supervisor:
        with running_gateway(upstreams=supervisor.address, upstream_api_key="k") as running:
            assert say(running).status_code == 200
        with running_gateway(upstreams=supervisor.address, ready=False) as running:
            assert say(running).status_code == 503


def test_a_dead_engine_among_two_costs_nobody_who_had_no_audio_yet() -> None:
    """Refused connections eject it; requests go to the other."""
    with running_engine(*FAST) as first, running_engine(*FAST) as second:
        both = f"{first.address},{second.address}"
        with running_gateway(upstreams=both) as running:
            wait_until(
                lambda: all(u.healthy for u in running.runtime.pool.upstreams), "both are ready"
            )
            first.stop()
            for _ in range(6):
                assert say(running).content == expected_pcm(TEXT, "mabel")
            wait_until(
                lambda: [u.healthy for u in running.runtime.pool.upstreams] == [False, True],
                "the dead one is ejected",
                15,
            )


def test_the_last_upstream_is_tried_even_when_ejected() -> None:
    """Envoy's panic rule; and honest 503s while it is gone."""
    with running_engine(*FAST) as only, running_gateway(upstreams=only.address) as running:
        only.stop()
        answer = say(running)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_healthy_upstream"
        assert running.metric("gateway_upstream_retries_total", reason="upstream_unreachable") >= 1


def test_a_full_house_is_429_with_a_time_to_come_back() -> None:
    """Slots, then a bounded queue, then an honest refusal at once."""
    slow = ("--voice", "simulated", "--tokens-per-second", "30")
    with (
        running_engine(*slow) as supervisor,
        running_gateway(upstreams=supervisor.address, max_in_flight=1, max_queued=0) as running,
    ):
        body = {"model": "tts-1", "input": TEXT, "response_format": "pcm"}
        url = running.url + "/v1/audio/speech"
        with httpx.stream("POST", url, json=body, timeout=120) as busy:
            chunks = busy.iter_raw()
            next(chunks)
            refused = httpx.post(url, json=body)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert int(refused.headers["retry-after"]) >= 1
            assert int(refused.headers["retry-after-ms"]) >= 1000
        wait_until(lambda: running.runtime.admission.in_flight == 0, "the slot is free", 15)
        assert running.metric("gateway_rejections_total", reason="queue_full") == 1


def test_a_queued_client_that_leaves_frees_its_place() -> None:
    """Nobody waits behind a ghost."""
    slow = ("--voice", "simulated", "--tokens-per-second", "30")
    with (
        running_engine(*slow) as supervisor,
        running_gateway(upstreams=supervisor.address, max_in_flight=1, max_queued=1) as running,
    ):
        body = {"model": "tts-1", "input": TEXT, "response_format": "pcm"}
        url = running.url + "/v1/audio/speech"
        with httpx.stream("POST", url, json=body, timeout=120) as busy:
            chunks = busy.iter_raw()
            next(chunks)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=body, timeout=0.3)
            wait_until(lambda: running.runtime.admission.queued == 0, "its place is free", 15)

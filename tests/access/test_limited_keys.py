"""Limits over real sockets: what a key that has had its share is told, and what it pays."""

from __future__ import annotations

import time

import httpx
import pytest

from gateway.text.estimate import speech_seconds
from tests.asking import BODY, KEY, get, speak
from tests.running import running_gateway, wait_until


def test_a_limited_key_is_told_when_to_come_back_and_others_go_on(engine: str) -> None:
    """In the surface's shape, counted as rejected; every answer tells what is left."""
    with running_gateway(
        upstreams=engine, api_keys=f"alice={KEY},bob=other", requests_per_minute=2
    ) as running:
        left = [
            speak(running, KEY).headers["x-ratelimit-remaining-requests"],
            get(running, "/v1/models", KEY).headers["x-ratelimit-remaining-requests"],
        ]
        assert left == ["1", "1"], "only speech is counted"
        assert httpx.post(running.url + "/generate", headers={"api-key": KEY}).status_code == 400
        refused = httpx.post(
            running.url + "/generate", json={"text": "Hi."}, headers={"api-key": KEY}
        )
        assert refused.status_code == 429
        assert "2 requests a minute" in refused.json()["detail"]
        assert 0 < int(refused.headers["retry-after"]) <= 30
        assert speak(running, "other").status_code == 200
        labels = {"surface": "generate", "outcome": "rejected"}
        assert running.metric("gateway_requests_total", **labels) == 1
        assert running.metric("gateway_rejections_total", reason="rate_limit") == 1
        assert running.metric("gateway_key_requests_total", key="alice") == 2
        assert running.metric("gateway_key_requests_total", key="bob") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_audio_is_charged_as_it_was_made(engine: str, *, stream: bool) -> None:
    """By the engine's audio, not by the text, the tempo or the format."""
    # So little comes in a second that what was taken stays taken for the test's time.
    limit = 0.06
    with running_gateway(
        upstreams=engine, api_keys=f"alice={KEY}", audio_seconds_per_minute=limit
    ) as running:
        answer = httpx.post(
            running.url + "/v1/audio/speech",
            json={**BODY, "speed": 2.0, "stream": stream},
            headers={"api-key": KEY},
        )
        assert float(answer.headers["x-ratelimit-remaining-audio-seconds"]) == 0
        made = running.metric("gateway_key_audio_seconds_total", key="alice")
        assert made == pytest.approx(2 * len(answer.content) / 48_000, rel=0.2)
        bucket = running.runtime.access.callers.get("alice").audio
        assert bucket is not None
        assert bucket.level == pytest.approx(limit - made, abs=0.1)
        assert made > 0.5


def test_a_key_without_audio_left_is_refused_in_every_surfaces_shape(engine: str) -> None:
    """A text longer than the limit is spoken from a full minute; what is owed is waited for."""
    with running_gateway(
        upstreams=engine, api_keys=f"alice={KEY}", audio_seconds_per_minute=1
    ) as running:
        long_text = {
            **BODY,
            "model": "tts-1",
            "input": "This takes more than a second to say. " * 3,
        }
        url, key = running.url + "/v1/audio/speech", {"api-key": KEY}
        assert httpx.post(url, json=long_text, headers=key).status_code == 200
        refused = speak(running, KEY)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        # More than one full minute: the answer was longer than a minute's share.
        assert int(refused.headers["retry-after"]) > 60
        assert int(refused.headers["x-ratelimit-remaining-audio-seconds"]) == 0
        items = [{"text": "One."}, {"text": "Two."}]
        batch = httpx.post(running.url + "/generate/batch", json=items, headers=key).json()
        assert [item["success"] for item in batch["results"]] == [False, False]
        assert running.metric("gateway_rejections_total", reason="rate_limit") == 3


def test_a_client_that_leaves_pays_for_what_was_made(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was held for the rest of the text is given back."""
    with running_gateway(
        upstreams=engine, api_keys=f"alice={KEY}", audio_seconds_per_minute=10_000
    ) as running:
        body = {
            **BODY,
            "model": "tts-1",
            "input": "fault-stall-48000 " + "It is a long story that I tell. " * 60,
        }
        url, key = running.url + "/v1/audio/speech", {"api-key": KEY}
        bucket = running.runtime.access.callers.get("alice").audio
        assert bucket is not None
        now = time.monotonic()
        monkeypatch.setattr(bucket, "_now", lambda: now)  # it fills by what is given back alone
        with httpx.stream("POST", url, json=body, headers=key, timeout=120) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            assert bucket.level < 9950, "the estimate is held while it runs"
        wait_until(lambda: bucket.level > 9950, "the estimate is given back")
        # Other segments may have been made ahead meanwhile, but never the whole text.
        whole_seconds = speech_seconds(str(body["input"])).likely_seconds
        made_seconds = running.metric("gateway_key_audio_seconds_total", key="alice")
        assert 0 < made_seconds < 0.75 * whole_seconds


def test_a_job_is_charged_when_it_is_stored(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its text is likely to take; a job that cannot be stored costs nothing."""
    with running_gateway(
        upstreams=engine, api_keys=f"alice={KEY}", audio_seconds_per_minute=1000
    ) as running:
        bucket = running.runtime.access.callers.get("alice").audio
        assert bucket is not None
        now = time.monotonic()
        monkeypatch.setattr(bucket, "_now", lambda: now)
        url, key = running.url + "/v1/audio/jobs", {"api-key": KEY}
        body = {"voice": "mabel", "input": "It is a long story that I tell. " * 20}
        assert httpx.post(url, json=body, headers=key, timeout=120).status_code == 202
        likely_seconds = speech_seconds(body["input"].strip()).likely_seconds
        assert bucket.level == pytest.approx(1000 - likely_seconds)
        monkeypatch.setattr("gateway.speech.jobs.jobs.MOST_OPEN", 0)
        assert httpx.post(url, json=body, headers=key, timeout=120).status_code == 429
        assert bucket.level == pytest.approx(1000 - likely_seconds)


def test_a_batch_counts_as_its_items(engine: str) -> None:
    """64 texts in one body are 64 requests."""
    with running_gateway(
        upstreams=engine, api_keys=f"alice={KEY}", requests_per_minute=10
    ) as running:
        url, key = running.url + "/generate/batch", {"api-key": KEY}
        items = [{"text": f"Number {n}."} for n in range(12)]
        answer = httpx.post(url, json=items, headers=key, timeout=120)
        assert answer.json()["successful"] == 12
        refused = httpx.post(url, json=items[:1], headers=key)
        assert refused.status_code == 429
        assert "detail" in refused.json()
        assert int(refused.headers["retry-after"]) > 6


def test_an_open_gateways_limits_hold_for_all_together(engine: str) -> None:
    """Who shows no key is one caller, named `anonymous`; a made-up key is no way around."""
    with running_gateway(upstreams=engine, requests_per_minute=1) as running:
        assert speak(running).status_code == 200
        assert speak(running, "made-up").status_code == 429
        assert running.metric("gateway_key_requests_total", key="anonymous") == 1

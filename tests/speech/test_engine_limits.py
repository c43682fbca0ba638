"""Generations within the engine's context, and what becomes of those below temperature 1."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.settings import load_settings
from gateway.speech.prepare import cold_tokens, prepare
from gateway.speech.request import SpeechRequest
from gateway.text.spoken_text import read_text
from gateway.upstream.dialect import Sampling
from loadtest.processes import engine_state
from loadtest.prose import prose
from tests.running import Gateway, running_engine, running_gateway
from tests.voices.recordings import tone, wav

DIGITS = "Call 555 0199, 0044 20 7946 0958 or 030 1234567. " * 40
SAMPLE = base64.b64encode(wav(tone(20.0, 24_000))).decode()


def speak(gateway: Gateway, text: str, **fields: Any) -> httpx.Response:
    """Ask for raw samples with a preset."""
    body = {"voice": "belinda", "model": "tts-1", "input": text, "response_format": "pcm", **fields}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)


@pytest.fixture(scope="module")
def small() -> Iterator[Gateway]:
    """A gateway in front of an engine with half of the usual context."""
    arguments = ("--voice", "simulated", "--tokens-per-second", "5000", "--max-model-len", "4096")
    with running_engine(*arguments) as engine, running_gateway(upstreams=engine.address) as running:
        yield running


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (prose(2000), {}),
        (DIGITS, {}),
        ("ሰላም ለዓለም። " * 200, {}),
        ("\n".join(f"[SPEAKER{n % 2}] {prose(60)}" for n in range(12)), {}),
        (prose(300), {"reference_audio_base64": SAMPLE, "reference_text": prose(50)}),
        (prose(300), {"instructions": prose(100)}),
    ],
)
def test_everything_works_within_half_of_the_context(
    small: Gateway, text: str, fields: dict[str, Any], *, buffered: bool
) -> None:
    """No 502 and no answer that breaks: `--max-model-len 4096` only makes shorter segments."""
    answer = speak(small, text, stream=not buffered, **fields)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 48_000
    (upstream,) = small.runtime.pool.upstreams
    refused = small.metric(
        "gateway_upstream_requests_total", upstream=upstream.address, outcome="upstream_rejected"
    )
    assert refused == 0


def test_a_prompt_that_no_engine_holds_is_refused_with_the_figures(small: Gateway) -> None:
    """400 that says what to shorten, before the engine is asked."""
    audio = base64.b64encode(wav(tone(28.0, 24_000))).decode()
    answer = speak(small, "Hello.", references=[{"audio": audio, "text": "Hello."}] * 3)
    assert answer.status_code == 400
    assert "tokens" in answer.json()["error"]["message"]


def test_a_long_transcript_of_a_preset_is_learnt_from_one_refusal(tmp_path: Path) -> None:
    """The first request is asked again with what fits; later ones are right at once."""
    (tmp_path / "long.wav").write_bytes(wav(tone(5.0, 24_000)))
    voices = {"long": {"transcript": prose(400), "audio_file": "long.wav"}}
    (tmp_path / "config.json").write_text(json.dumps(voices))
    arguments = ("--voice", "simulated", "--tokens-per-second", "5000", "--max-model-len", "4096")
    with (
        running_engine(*arguments, "--voice-presets-dir", str(tmp_path)) as engine,
        running_gateway(upstreams=engine.address) as gateway,
    ):
        text = prose(60)
        answers = [speak(gateway, text, voice="long") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        refused = gateway.metric(
            "gateway_upstream_requests_total", upstream=engine.address, outcome="upstream_rejected"
        )
        assert refused == 1
        assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize("text", ["Hello there.", prose(1500)])
def test_a_cold_runaway_is_made_once_more_at_the_engines_own_temperature(text: str) -> None:
    """A whole answer that found no end below 1 is made again; the cap keeps the first try short."""
    arguments = ("--voice", "simulated", "--tokens-per-second", "5000")
    with running_engine(*arguments) as engine, running_gateway(upstreams=engine.address) as gateway:
        right = speak(gateway, text, stream=False)
        faults = {"next": ["runaway"], "match": text[:9]}
        httpx.post(engine.address + "/simulator/faults", json=faults).raise_for_status()
        answer = speak(gateway, text, stream=False, temperature=0.5)
        assert answer.content == right.content
        asked = [seen["body"] for seen in engine_state(engine.address)["requests"]]
        tries = [body for body in asked if body["input"].startswith(text[:9])][-2:]
        assert {body["temperature"] for body in tries} == {0.5, 1.0}
        cold, warm = sorted(tries, key=lambda body: float(body["temperature"]))
        assert cold["max_tokens"] == cold_tokens(cold["input"])
        assert cold["max_tokens"] < warm["max_tokens"]
        assert gateway.metric("gateway_runaway_total", reason="too_long") == 1


@pytest.mark.parametrize(
    ("temperature", "max_tokens", "buffered", "warmer"),
    [
        (0.5, None, True, True),
        (0.0, None, True, True),
        (0.5, None, False, False),
        (1.0, None, True, False),
        (1.2, None, True, False),
        (None, None, True, False),
        (0.5, 20, True, False),
    ],
)
def test_only_a_cold_whole_answer_has_another_plan(
    temperature: float | None, max_tokens: int | None, *, buffered: bool, warmer: bool
) -> None:
    """What a client hears already cannot be made again, and its own bound is no runaway."""
    settings = load_settings(upstreams="http://127.0.0.1:1")
    request = SpeechRequest(
        surface="openai",
        text=read_text("Hello there, how are you?", 100),
        voice="belinda",
        voice_label="belinda",
        response_format="pcm",
        buffered=buffered,
        sampling=Sampling(temperature=temperature, max_tokens=max_tokens),
    )
    plan = prepare(request, settings).plan(request.text.spoken)
    assert (plan.warmer is not None) == warmer
    if plan.warmer is not None:
        assert plan.warmer.warmer is None
        assert plan.warmer.generation.sampling.temperature is None

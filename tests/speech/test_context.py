"""Ordinary texts get through an engine that counts with the model's own tokenizer."""

from __future__ import annotations

import httpx
import pytest

from loadtest.processes import engine_state
from tests.running import Gateway
from tests.tokenizer import TEXTS, TOKENIZER, count, tokenizer


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """It has the real tokenizer; skips where that is not installed."""
    quick = ("--tokens-per-second", "20000")
    return (*quick, "--tokenizer", str(TOKENIZER)) if tokenizer() else quick


@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize("name", TEXTS)
def test_ordinary_texts_are_never_refused_for_the_context(
    gateway: Gateway, name: str, times: int
) -> None:
    """Numbers, prices and rare scripts, short and long, with a preset: 200 and audio."""
    body = {
        "model": "tts-1",
        "input": TEXTS[name] * times,
        "voice": "belinda",
        "response_format": "pcm",
    }
    answer = httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)
    assert (answer.status_code, answer.headers.get("content-type")) == (200, "audio/pcm")
    assert len(answer.content) > 2 * 24_000


def test_the_simulator_counts_with_the_tokenizer(gateway: Gateway, engine: str) -> None:
    """The prompt's length is what the model's tokenizer makes of the text."""
    text = TEXTS["Amharic"].strip()
    body = {"model": "tts-1", "input": text, "voice": "belinda", "response_format": "pcm"}
    httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120).raise_for_status()
    asked = next(
        r for r in engine_state(engine)["requests"][::-1] if r["text"].startswith("\u1230")
    )
    assert asked["prompt_tokens"] == 92 + count(asked["text"]) + 202

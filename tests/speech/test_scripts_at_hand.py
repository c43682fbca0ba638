"""A text in scripts that the engines at hand do not speak: judged whole, before the first byte."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from loadtest.prose import prose
from tests.running import Gateway, running_engine, running_gateway

RUSSIAN = "Это очень важное сообщение для вас."


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway in front of the CPU voice, which tells that it speaks English."""
    with running_engine("--voice", "cpu") as engine, running_gateway(upstreams=engine.address) as g:
        yield g


def speak(gateway: Gateway, text: str) -> httpx.Response:
    """Ask for raw samples."""
    body = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": "pcm"}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=60)


@pytest.mark.parametrize("text", [RUSSIAN, prose(300) + "\n\n" + RUSSIAN])
def test_a_passage_is_refused_wherever_it_stands(gateway: Gateway, text: str) -> None:
    """Also where a later segment would hold it."""
    answer = speak(gateway, text)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unspeakable_text", "input")
    assert "Cyrillic" in error["message"]


def test_a_word_is_left_out_and_counted(gateway: Gateway) -> None:
    """A header says how many letters."""
    answer = speak(gateway, "The word привет is Russian.")
    assert answer.status_code == 200
    assert answer.headers["x-unspoken-letters"] == "6"
    assert "x-unspoken-letters" not in speak(gateway, "The word is English.").headers

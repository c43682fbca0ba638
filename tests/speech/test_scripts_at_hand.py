"""A text in scripts that the engines at hand do not speak: judged whole, before the first byte."""

from __future__ import annotations

import httpx
import pytest

from loadtest.prose import prose
from tests.running import Gateway, wait_until

RUSSIAN = "Это очень важное сообщение для вас."


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """The CPU voice, which tells that it speaks English."""
    return ("--voice", "cpu")


def speak(gateway: Gateway, text: str) -> httpx.Response:
    """Ask for raw samples."""
    body = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": "pcm"}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)


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


@pytest.mark.parametrize("text", ["Привет", "你好世界", "नमस्ते!"])
@pytest.mark.parametrize(
    ("path", "field", "more"),
    [
        ("/v1/audio/speech", "input", {"model": "tts-1"}),
        ("/v1/audio/speech", "input", {}),
        ("/audio/speech/stream", "input", {}),
        ("/generate", "text", {}),
        ("/tts", "text", {"predefined_voice_id": "alloy.wav"}),
    ],
)
def test_a_word_alone_is_a_short_silence_on_every_surface(
    gateway: Gateway, path: str, field: str, more: dict[str, str], text: str
) -> None:
    """What a client cut from a longer text is judged as it is within it."""
    body = {field: text, "response_format": "wav", **more}
    answer = httpx.post(gateway.url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["x-unspoken-letters"]) >= 4
    assert not any(answer.content[44:])
    assert 0.1 < len(answer.content[44:]) / 48_000 < 1


def made(gateway: Gateway, text: str) -> bytes:
    """The samples of a job."""
    url = gateway.url + "/v1/audio/jobs"
    job = httpx.post(
        url, json={"model": "tts-1", "input": text, "response_format": "pcm"}, timeout=120
    ).json()
    path = f"{url}/{job['id']}"
    state = wait_until(
        lambda: (found := httpx.get(path).json()["state"]) in {"completed", "failed"} and found,
        "the job is over",
    )
    assert state == "completed"
    return httpx.get(path + "/download").content


@pytest.mark.parametrize("text", ["Привет", "\N{PARTY POPPER}", "# \N{BLACK STAR}\n\n---"])
def test_a_job_with_nothing_to_say_is_a_short_silence(gateway: Gateway, text: str) -> None:
    """It is over at once, with a file."""
    audio = made(gateway, text)
    assert not any(audio)
    assert 0.1 < len(audio) / 48_000 < 1


def test_a_job_leaves_a_word_out_too(gateway: Gateway) -> None:
    """It judges the text as it was judged when it came."""
    assert len(made(gateway, "The word привет is Russian.")) > 48_000

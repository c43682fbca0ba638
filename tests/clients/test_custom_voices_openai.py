"""OpenAI's Python SDK makes, uses and deletes a custom voice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.audio.speech_create_params import VoiceID

from gateway.voices.samples.loudness import normalise_recording
from tests.running import Gateway
from tests.voices.echo import pcm_of, running_echo
from tests.voices.recordings import tone, wav

SAMPLE = wav(tone(1.5, 24_000))
HEARD = pcm_of(normalise_recording(SAMPLE, param="audio").wav)
TEXT = "How do you do, my dear?"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """An engine that says what it is given."""
    with running_echo() as (address, _):
        yield address


@pytest.fixture(scope="module")
def gateway_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An empty library."""
    return {"voices_dir": tmp_path_factory.mktemp("voices")}


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The SDK, as installed."""
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="x", max_retries=0) as sdk:
        yield sdk


def test_a_custom_voice_lives_and_dies(client: openai.OpenAI, tmp_path: Path) -> None:
    """Made from a file, spoken with by its id, deleted once; unknown afterwards."""
    file = tmp_path / "me.wav"
    file.write_bytes(SAMPLE)
    voice = client.audio.voices.create(audio_sample=file, consent="cons_1", name="Me")
    assert (voice.object, voice.name, voice.type) == ("audio.voice", "Me", "audio_sample")
    assert voice.created_at > 0
    names: list[VoiceID | str] = [{"id": voice.id}, voice.id, "me"]
    for named in names:
        speech = client.audio.speech.create(
            model="gpt-4o-mini-tts", voice=named, input=TEXT, response_format="pcm"
        )
        assert speech.content == HEARD
    gone = client.audio.voices.delete(voice.id)
    assert (gone.id, gone.deleted, gone.object) == (voice.id, True, "audio.voice.deleted")
    with pytest.raises(openai.NotFoundError):
        client.audio.voices.delete(voice.id)
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(model="tts-1", voice={"id": voice.id}, input=TEXT)


def test_the_sdks_errors_are_the_sdks_own(client: openai.OpenAI) -> None:
    """A taken name is a conflict, a broken sample a bad request that names the field."""
    client.audio.voices.create(audio_sample=("a.wav", SAMPLE), consent="c", name="Twice")
    with pytest.raises(openai.ConflictError):
        client.audio.voices.create(audio_sample=("a.wav", SAMPLE), consent="c", name="twice")
    with pytest.raises(openai.BadRequestError) as failure:
        client.audio.voices.create(audio_sample=("a.wav", b"no sound"), consent="c", name="x")
    assert failure.value.param == "audio_sample"
    with pytest.raises(openai.BadRequestError) as described:
        client.audio.voices.create(type="prompt", prompt="An old man.", name="x")
    assert described.value.param in {"type", "audio_sample"}

"""travisvn's speech: whole files, streams and events; its ranges, and its voices."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from tests.api.chatterbox.conftest import RECORDING

TEXT = "Hello there, my friend."
PCM = expected_pcm(TEXT, "en_woman")  # alloy is this preset


def say(client: httpx.Client, path: str = "/audio/speech", **fields: Any) -> httpx.Response:
    """Ask for the text."""
    return client.post(path, json={"input": TEXT, **fields})


def test_it_is_a_whole_wav_file_when_nothing_else_is_asked_for(client: httpx.Client) -> None:
    """Players that trust a file's sizes play all of it; a browser saves it under its name."""
    answer = say(client)
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-disposition"] == "attachment; filename=speech.wav"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert struct.unpack("<I", answer.content[4:8])[0] == len(answer.content) - 8
    assert struct.unpack("<I", answer.content[40:44])[0] == len(answer.content) - 44
    assert answer.content[44:] == PCM


def test_a_form_says_the_same_as_json(client: httpx.Client) -> None:
    """With or without a file, and with empty fields left out."""
    fields = {"input": TEXT, "exaggeration": "0.5", "cfg_weight": ""}
    assert client.post("/audio/speech/upload", data=fields).content[44:] == PCM
    multipart = {name: (None, value) for name, value in fields.items()}
    assert client.post("/audio/speech/upload", files=multipart).content[44:] == PCM


def test_another_format_is_given_where_it_is_asked_for(client: httpx.Client) -> None:
    """Its own server sends WAV under any name; a format that is unknown is still that."""
    answer = say(client, response_format="mp3")
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["content-disposition"].endswith("speech.mp3")
    assert say(client, response_format="aiff").headers["content-type"] == "audio/wav"


@pytest.mark.parametrize("path", ["/audio/speech/stream", "/v1/audio/speech/stream/upload"])
def test_a_stream_is_a_wav_file_without_an_end(client: httpx.Client, path: str) -> None:
    """The sizes say "until the end", and no proxy holds it back."""
    with client.stream("POST", path, data={"input": TEXT}) as answer:
        content = b"".join(answer.iter_bytes())
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-disposition"] == "attachment; filename=speech_stream.wav"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert struct.unpack("<I", content[4:8])[0] == 0x7FFFFFFF - 36
    assert struct.unpack("<I", content[40:44])[0] == 0xFFFFFFFF
    assert content[44:] == PCM


def test_events_tell_what_the_samples_are_and_carry_them(client: httpx.Client) -> None:
    """First what it is, then the raw samples, then the usage."""
    answer = say(client, stream_format="sse")
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    info, done = events[0], events[-1]
    assert info == {
        "type": "speech.audio.info",
        "sample_rate": 24_000,
        "channels": 1,
        "bits_per_sample": 16,
    }
    deltas = events[1:-1]
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == PCM
    assert done["type"] == "speech.audio.done"
    assert set(done["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", ""),
        ("input", "   "),
        ("input", "a" * 3001),
        ("input", None),
        ("exaggeration", 0.24),
        ("exaggeration", 2.01),
        ("cfg_weight", -0.01),
        ("cfg_weight", 1.01),
        ("temperature", 0.04),
        ("temperature", 5.01),
        ("temperature", "warm"),
        ("streaming_chunk_size", 49),
        ("streaming_chunk_size", 501),
        ("streaming_strategy", "syllable"),
        ("streaming_buffer_size", 0),
        ("streaming_buffer_size", 11),
        ("streaming_quality", "best"),
        ("stream_format", "websocket"),
    ],
)
def test_a_field_out_of_its_range_is_refused_by_name(
    client: httpx.Client, field: str, value: Any
) -> None:
    """422 with FastAPI's list, in which a client finds the field."""
    for path in ("/audio/speech", "/tts", "/audio/speech/stream"):
        answer = say(client, path, **{field: value})
        assert answer.status_code == 422, path
        assert answer.json()["detail"][0]["loc"] == ["body", field]


def test_its_limits_themselves_are_taken(client: httpx.Client) -> None:
    """The ends of every range belong to it; unknown fields and any model are ignored."""
    ends: tuple[dict[str, Any], ...] = (
        {"exaggeration": 0.25, "cfg_weight": 0, "temperature": 0.05, "streaming_chunk_size": 50},
        {"exaggeration": 2, "cfg_weight": 1, "temperature": 5, "streaming_chunk_size": 500},
        {"model": "anything", "shoe_size": 43, "streaming_buffer_size": 10, "speed": 99},
        {"voice": None, "response_format": None, "speed": None, "stream_format": None},
    )
    for fields in ends:
        answer = say(client, **fields)
        assert answer.status_code == 200, answer.text


def test_an_unknown_voice_is_the_default_voice_and_the_answer_says_so(
    client: httpx.Client,
) -> None:
    """A client that was set up for another server's voices is still answered."""
    answer = say(client, voice="somebody")
    assert answer.headers["x-voice-fallback"] == "default"
    assert answer.content[44:] == PCM
    assert "x-voice-fallback" not in say(client, voice="en_woman.WAV").headers


def test_the_default_voice_is_used_where_none_is_named_or_alloy(
    client: httpx.Client, bob: str
) -> None:
    """Its clients send "alloy" when they mean none; a voice that is named is used."""
    usual = say(client).content
    client.post("/voices/default", data={"voice_name": bob}).raise_for_status()
    bobs = say(client, voice=bob).content
    assert bobs != usual
    for fields in ({}, {"voice": "alloy"}, {"voice": "somebody"}):
        assert say(client, **fields).content == bobs, fields
    assert say(client, voice="en_woman").content == usual


def test_a_file_of_the_request_is_the_voice(client: httpx.Client) -> None:
    """It is heard on all upload routes, and is not kept."""
    form = {"input": TEXT, "voice": "en_woman"}
    for path in ("/audio/speech/upload", "/tts/upload"):
        answer = client.post(path, data=form, files={"voice_file": ("me.wav", RECORDING)})
        assert answer.status_code == 200, answer.text
        assert answer.content[44:] != PCM
    assert client.get("/voices").json()["count"] == 0


def test_a_file_that_is_no_recording_is_refused(client: httpx.Client) -> None:
    """In travisvn's shape."""
    answer = client.post(
        "/audio/speech/upload",
        data={"input": TEXT},
        files={"voice_file": ("me.wav", b"MZ\x90 not audio")},
    )
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type"}


def test_speed_changes_the_length(client: httpx.Client) -> None:
    """Twice as fast is half as long."""
    fast = len(say(client, speed=2.0).content)
    assert fast == pytest.approx(len(PCM) / 2, rel=0.15)

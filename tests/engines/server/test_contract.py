"""The container's validation, word for word, without HTTP."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, cast

import numpy as np
import pytest
import soundfile as sf

from engines.server.contract import (
    ChatFields,
    ContractError,
    SpeechFields,
    bound_tokens,
    decode_base64,
    in_stream_error,
    parse_json,
    validate,
)
from engines.server.requests import EngineLimits, chat_job, speech_job
from engines.voice import PRESETS, Job

LIMITS = EngineLimits(8192, preset_tokens=202)


def refusal(run: Any, *arguments: Any) -> ContractError:
    """The refusal that a call ends in."""
    with pytest.raises(ContractError) as caught:
        run(*arguments)
    return caught.value


def speech(**fields: Any) -> Job:
    """A speech request's job."""
    body = {"model": "m", "input": "Hello.", "voice": "mabel", **fields}
    return speech_job(validate(SpeechFields, body), PRESETS, LIMITS, "1")


def tone(seconds: float, rate_hz: int = 16_000, audio_format: str = "WAV") -> str:
    """A reference as base64."""
    sink = io.BytesIO()
    wave = np.sin(np.arange(int(seconds * rate_hz)) / 20) * 0.3
    sf.write(sink, wave, rate_hz, format=audio_format)
    return base64.b64encode(sink.getvalue()).decode()


def sample(data: str, name: str = "wav") -> dict[str, Any]:
    """A message with a reference."""
    audio = {"data": data, "format": name}
    return {"role": "assistant", "content": [{"type": "input_audio", "input_audio": audio}]}


def chat(*messages: dict[str, Any], **fields: Any) -> Job:
    """A chat request's job."""
    return chat_job(validate(ChatFields, {"messages": messages, **fields}), LIMITS, "1")


def user(text: str) -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "[{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}]"),
        (b"{", "[{'type': 'json_invalid', 'loc': ('body', 1), 'msg': 'JSON decode error', "),
        (b"\xff{}", "There was an error parsing the body"),
    ],
)
def test_what_is_no_json_is_refused_like_there(body: bytes, message: str) -> None:
    """400, never 422."""
    error = refusal(parse_json, body)
    assert error.status == 400
    assert error.message.startswith(message)


def test_a_refusal_echoes_the_input_in_a_flat_envelope() -> None:
    """Python's repr of the validation errors, with what the client sent."""
    error = refusal(validate, SpeechFields, {"model": "m", "input": 5, "voice": "x"})
    assert error.envelope() == {
        "object": "error",
        "message": "[{'type': 'string_type', 'loc': ('body', 'input'), "
        "'msg': 'Input should be a valid string', 'input': 5}]",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


def test_an_unknown_voice_is_the_first_preset() -> None:
    """Without a word: clients must look into the list."""
    assert speech(voice="nobody").preset == PRESETS[0]
    assert speech(voice="vex").preset == "vex"


def test_zero_chunk_knobs_mean_the_default() -> None:
    """As Python's `or` makes them there."""
    job = speech(audio_chunk_size=0, audio_chunk_overlap_size=0)
    assert (job.chunk_tokens, job.overlap_tokens) == (25, 25)
    assert speech(audio_chunk_size=-3).chunk_tokens == -3


def test_max_tokens_defaults_to_the_rest_of_the_context() -> None:
    """Which is five minutes of audio when the model misses its end."""
    assert speech().max_tokens == 8192 - 92 - len("Hello.")
    assert speech(max_tokens=100).max_tokens == 100
    assert speech().prompt_tokens == 92 + len("Hello.") + 202


def test_the_context_bounds_text_and_answer_together() -> None:
    """400 with the figures."""
    assert bound_tokens(100, 300, 400) == 300
    error = refusal(bound_tokens, 101, 300, 400)
    assert error.message.startswith("This model's maximum context length is 400 tokens. However, ")
    assert "you requested 401 tokens" in error.message
    assert refusal(bound_tokens, 400, None, 400).status == 400


def test_messages_become_scene_references_and_text() -> None:
    """A user's text before an audio is its transcript; the last one is to be said."""
    job = chat(
        {"role": "system", "content": "A hall."},
        user("One."),
        sample(tone(1)),
        user("Two."),
        sample(tone(2, 48_000, "MP3"), "mp3"),
        user("Say this."),
    )
    assert (job.system_prompt, job.text) == ("A hall.", "Say this.")
    assert [transcript for transcript, _ in job.references] == ["One.", "Two."]
    assert job.reference_seconds == pytest.approx(3, abs=0.1)
    words = 40 + len("A hall.Say this.One.Two.")
    assert job.prompt_tokens == pytest.approx(words + 3 * 25 + 2 * 9, abs=3)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (sample(tone(1), "flac"), "4 validation errors for ValidatorIterator"),
        (sample("abc"), "Incorrect padding"),
        (sample(cast("str", 5)), "4 validation errors for ValidatorIterator"),
        (sample(base64.b64encode(b"no audio").decode()), "Format not recognised."),
        (sample(tone(1, audio_format="AIFF")), "Format not recognised."),
        ({"role": "user", "content": [{"type": "audio_url", "audio_url": {}}]}, "fetches no"),
    ],
)
def test_unreadable_references_are_400(message: dict[str, Any], words: str) -> None:
    """The name must be wav or mp3, then the bytes decide."""
    error = refusal(chat, message, user("Hello."))
    assert error.status == 400
    assert words in error.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": NaN, "b": [1e400, -Infinity, 1E5, 123456789012345678901234567890], "a": "\\u00e9"}',
        b'["\\ud800"]',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b"[" * 300 + b"]" * 300,
    ],
)
def test_json_is_read_as_by_the_standard_library(body: bytes) -> None:
    """Which the container's server uses: its parser takes more than the quick one."""
    assert repr(parse_json(body)) == repr(json.loads(body))
    assert repr(parse_json(bytearray(body))) == repr(json.loads(body))


@pytest.mark.parametrize(
    "text",
    [
        *("", "YQ==", "+/+/", "-_-_", "Y-Q=", "YWFh-_-_", "YQ==YQ==", "Y Q=\n=", "*YQ==", "YR=="),
        *("====", "YQ", "YQ=", "é"),
    ],
)
def test_base64_is_read_as_by_the_standard_library(text: str) -> None:
    """Which passes over what is not of the alphabet, and wants the padding."""
    try:
        expected: Any = base64.b64decode(text)
    except ValueError as error:
        expected = str(error)
    try:
        found: Any = decode_base64(text)
    except ValueError as error:
        found = str(error)
    assert found == expected
    data = bytes(range(256)) * 40
    assert decode_base64(base64.b64encode(data).decode()) == data


def test_the_bytes_of_a_reference_decide_not_its_name() -> None:
    """WAV labelled mp3 is read."""
    assert chat(sample(tone(1), "mp3"), user("x")).reference_seconds == pytest.approx(1)


def test_other_chat_refusals() -> None:
    """Empty messages, too many audios, stream options without a stream, a strange voice."""
    assert refusal(chat).status == 500
    assert refusal(chat, *[sample(tone(0.1))] * 51, user("x")).status == 400
    assert refusal(lambda: chat(user("x"), stream_options={"include_usage": True})).status == 400
    assert refusal(lambda: chat(user("x"), audio={"format": "wav", "voice": "vex"})).status == 400


def test_in_stream_errors_are_nested_with_json_s_own_spacing() -> None:
    """The needle that a gateway must look for."""
    data = in_stream_error("é")
    assert data.startswith(b'{"error": {"object": "error", "message": "\\u00e9"')
    assert json.loads(data)["error"]["code"] == 400

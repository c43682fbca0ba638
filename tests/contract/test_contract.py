"""What docs/contract.md says of the engine's HTTP, asked of an engine.

The checks hold for the container; those that only its timing, its tokenizer or its weights can
show are asked of the simulator alone, and those that the CPU voice cannot have are not asked of it.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import wave
from typing import Any

import httpx
import pytest

from tests.contract.conftest import Target
from tests.running import running_engine, wait_until

TOKEN_BYTES = 1920


def only(target: Target, *kinds: str) -> None:
    """Skip a check that does not apply to this kind of engine."""
    if target.kind not in kinds:
        pytest.skip(f"does not apply to the {target.kind} engine")


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a chat stream, which must end with [DONE]."""
    lines = [line for line in answer.text.split("\n") if line.strip()]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def audio_of(event: dict[str, Any]) -> bytes:
    """The PCM of a chat event."""
    for choice in event["choices"]:
        audio = choice["delta"].get("audio")
        if audio and audio.get("data"):
            return base64.b64decode(audio["data"])
    return b""


def wav_of(seconds: float) -> bytes:
    """A reference file with a tone-like square wave."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes((b"\x00\x10" * 60 + b"\x00\xf0" * 60) * int(seconds * 200))
    return sink.getvalue()


def reference(seconds: float, **changes: Any) -> dict[str, Any]:
    """Messages with one reference."""
    audio = {"data": base64.b64encode(wav_of(seconds)).decode(), "format": "wav", **changes}
    return {
        "messages": [
            {"role": "system", "content": "Generate audio following instruction."},
            {"role": "user", "content": "A sample."},
            {"role": "assistant", "content": [{"type": "input_audio", "input_audio": audio}]},
            {"role": "user", "content": "It was a bright cold day in April."},
        ]
    }


# -- section 1 ---------------------------------------------------------------------------------


def test_health_is_an_empty_200_and_refuses_head(target: Target) -> None:
    """Liveness only."""
    answer = target.client.get("/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"
    assert "content-type" not in answer.headers
    assert target.client.head("/health").status_code == 405


def test_models_voices_version_and_metrics(target: Target) -> None:
    """The lists that the gateway reads."""
    model = target.client.get("/v1/models").json()["data"][0]
    assert model["owned_by"] == "vllm"
    assert model["max_model_len"] >= 1024
    assert target.voices
    assert all(isinstance(voice, str) for voice in target.voices)
    assert "version" in target.client.get("/version").json()
    metrics = target.client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "vllm:num_requests_running{" in metrics.text


@pytest.mark.parametrize("path", ["/ping", "/load", "/v1/completions"])
def test_other_routes_are_404(target: Target, path: str) -> None:
    """FastAPI's own shape."""
    answer = target.client.get(path)
    assert answer.status_code in {404, 405}
    assert set(answer.json()) == {"detail"}


# -- section 2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("response_format", ["pcm", "wav", "mp3"])
def test_every_answer_says_audio_mpeg_in_chunks(target: Target, response_format: str) -> None:
    """Whatever the format."""
    answer = target.speech(response_format=response_format)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    if response_format == "pcm":
        assert len(answer.content) % TOKEN_BYTES == 0
        assert len(answer.content) > 10 * TOKEN_BYTES


def test_each_chunk_of_wav_is_a_complete_file(target: Target) -> None:
    """Which is why the gateway asks for pcm."""
    long = "It was a bright cold day in April, and the clocks were striking one. " * 3
    content = target.speech(response_format="wav", input=long, max_tokens=2000).content
    files = content.count(b"RIFF")
    assert files > 1
    first = int.from_bytes(content[40:44], "little")
    assert content[44 + first : 48 + first] == b"RIFF"


def test_an_unknown_model_is_a_flat_404(target: Target) -> None:
    """Not OpenAI's envelope."""
    answer = target.speech(model="x")
    assert answer.status_code == 404
    assert answer.json() == {
        "object": "error",
        "message": "The model `x` does not exist.",
        "type": "NotFoundError",
        "param": None,
        "code": 404,
    }
    assert target.speech(model="").status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"input": None},
        {"input": ...},
        {"voice": None},
        {"response_format": "opus"},
        {"response_format": "PCM"},
        {"response_format": None},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"top_k": -2},
        {"max_tokens": 0},
    ],
)
def test_bad_fields_are_a_flat_400(target: Target, fields: dict[str, Any]) -> None:
    """Never 422."""
    answer = target.speech(**fields)
    assert answer.status_code == 400
    assert answer.json()["type"] == "BadRequestError"
    assert answer.json()["code"] == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"not json"])
def test_bad_bodies_are_a_flat_400(target: Target, body: bytes) -> None:
    """Never 422."""
    answer = target.client.post(
        "/v1/audio/speech", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["object"] == "error"


def test_another_content_type_is_415(target: Target) -> None:
    """With the fork's own words."""
    answer = target.client.post("/v1/audio/speech", content=b"{}")
    assert answer.status_code == 415
    detail = "Unsupported Media Type: Only 'application/json' is allowed"
    assert answer.json() == {"detail": detail}


def test_an_unknown_voice_is_the_first_preset_in_silence(target: Target) -> None:
    """200, and another voice than was asked for."""
    answer = target.speech(voice="nobody", response_format="pcm")
    assert answer.status_code == 200
    if target.kind == "simulated":
        assert answer.content == target.speech(voice=target.voices[0]).content


def test_a_context_that_is_too_small_is_a_flat_400(target: Target) -> None:
    """Text and max_tokens together."""
    limit = target.client.get("/v1/models").json()["data"][0]["max_model_len"]
    for fields in ({"max_tokens": limit}, {"input": "word " * limit * 4, "max_tokens": ...}):
        answer = target.speech(**fields)
        assert answer.status_code == 400
        assert "maximum context length" in answer.json()["message"]


@pytest.mark.parametrize("tokens", [1, 10])
def test_too_few_tokens_are_an_empty_200(target: Target, tokens: int) -> None:
    """Ten rows of delayed codes are not decoded."""
    answer = target.speech(max_tokens=tokens)
    assert (answer.status_code, answer.content) == (200, b"")


def test_truncation_looks_like_success(target: Target) -> None:
    """A clean end. An answer that ends by itself uses 11 tokens more than frames, a cut one 8.

    The rows that close the audio and the two closing tokens were never made.
    """
    answer = target.speech(max_tokens=31)
    assert answer.status_code == 200
    assert len(answer.content) == 23 * TOKEN_BYTES


@pytest.mark.parametrize(
    ("size", "overlap", "kept"),
    [
        (25, 25, 120),
        (25, 11, 120),
        (13, 11, 120),
        (250, 25, 120),
        (5, 25, 112),
        (-3, 25, 77),
        (25, 1, 93),
    ],
)
def test_chunk_knobs_lose_audio_below_the_safe_ones(
    target: Target, size: int, overlap: int, kept: int
) -> None:
    """Of 120 frames that max_tokens cuts an answer to."""
    only(target, "simulated", "container")
    answer = target.speech(
        input="word " * 100,
        max_tokens=128,
        audio_chunk_size=size,
        audio_chunk_overlap_size=overlap,
    )
    assert len(answer.content) == kept * TOKEN_BYTES


# -- section 3 ---------------------------------------------------------------------------------


def test_error_text_stands_in_a_200(target: Target) -> None:
    """Before the first token it is the whole body; later it stands inside the audio."""
    only(target, "simulated")
    before = target.speech(input="fault-raise please.")
    assert before.status_code == 200
    assert before.headers["content-type"] == "audio/mpeg"
    assert before.content.startswith(b'{"error": {"object": "error", "message": ')
    late = target.speech(input="fault-raiselate-32640 " + "word " * 60, max_tokens=2000)
    at = late.content.index(b'{"error": {"object": "error", "message": ')
    assert at == 32_640
    assert len(late.content) > at + 20 * TOKEN_BYTES


def running_on(target: Target) -> bool:
    """Whether the engine runs a generation."""
    for line in target.client.get("/metrics").text.splitlines():
        if line.startswith("vllm:num_requests_running{"):
            return float(line.rsplit(" ", 1)[1]) > 0
    raise AssertionError("no such metric")


@pytest.mark.parametrize("half_close", [False, True])
def test_a_client_that_leaves_stops_the_generation(target: Target, *, half_close: bool) -> None:
    """Half-closing counts as leaving."""
    body = json.dumps(
        {
            "model": target.model,
            "voice": target.voices[0],
            "input": "This goes on for quite some time, as you will hear. " * 60,
            "max_tokens": 6000,
        }
    ).encode()
    url = target.client.base_url
    with socket.create_connection((url.host, url.port), 10) as connection:
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        connection.recv(1024)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
            wait_until(lambda: not running_on(target), "the generation is stopped", 15)
            return
    wait_until(lambda: not running_on(target), "the generation is stopped", 15)


# -- section 4 ---------------------------------------------------------------------------------


def test_a_whole_chat_answer_carries_a_wav(target: Target) -> None:
    """24 kHz mono, in base64."""
    message = target.chat().json()["choices"][0]
    with wave.open(io.BytesIO(base64.b64decode(message["message"]["audio"]["data"]))) as file:
        assert file.getparams()[:3] == (1, 2, 24_000)
        assert file.getnframes() > 10 * 960
    assert message["finish_reason"] in {"stop", "length"}


def test_a_chat_stream_carries_raw_pcm_and_ends_with_done(target: Target) -> None:
    """The format that was asked for is ignored."""
    answer = target.chat(stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = events_of(answer)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    pcm = b"".join(map(audio_of, events))
    assert not pcm.startswith(b"RIFF")
    assert len(pcm) > 10 * TOKEN_BYTES
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] > 0


def test_on_length_the_tail_comes_after_the_finish_event(target: Target) -> None:
    """Read to [DONE]."""
    only(target, "simulated", "container")
    events = events_of(target.chat(stream=True, max_completion_tokens=40))
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
    at = reasons.index("length")
    assert any(audio_of(event) for event in events[at + 1 :])
    assert reasons[-1] is None


def test_stream_options_without_a_stream_are_a_400(target: Target) -> None:
    """As in vLLM."""
    assert target.chat(stream_options={"include_usage": True}).status_code == 400


def test_a_reference_is_taken(target: Target) -> None:
    """WAV in base64."""
    events = events_of(target.chat(stream=True, **reference(2)))
    assert b"".join(map(audio_of, events))


@pytest.mark.parametrize(
    "changes", [{"format": "flac"}, {"format": None}, {"data": "!!!"}, {"data": "QUJ"}]
)
def test_a_bad_reference_is_a_400(target: Target, changes: dict[str, Any]) -> None:
    """Format, base64 or content."""
    assert target.chat(stream=True, **reference(1, **changes)).status_code == 400


def test_a_reference_that_is_too_long_is_an_error_event(target: Target) -> None:
    """HTTP 200; the prompt is only measured with its audio in it."""
    only(target, "simulated")
    answer = target.chat(stream=True, **reference(400))
    assert answer.status_code == 200
    events = events_of(answer)
    assert "Prompt length of" in events[-1]["error"]["message"]
    assert target.chat(**reference(400)).status_code == 400


# -- section 6 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["<|AUDIO|>", "<|AUDIO_OUT|>"])
def test_a_special_token_kills_the_server(token: str) -> None:
    """All streams are cut and nobody listens any more: what the gateway must never let through."""
    with running_engine("--voice", "simulated") as engine:
        body = {
            "model": "higgs-audio-v2-generation-3B-base",
            "voice": "belinda",
            "input": f"Hello {token} there.",
        }
        starts = engine.starts
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(engine.address + "/v1/audio/speech", json=body)
        wait_until(lambda: engine.starts > starts, "it is started again")

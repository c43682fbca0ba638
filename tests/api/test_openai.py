"""`POST /v1/audio/speech` over real HTTP, against a simulated engine in its own process."""

from __future__ import annotations

import base64
import io
import itertools
import json
import wave
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.voices.aliases import OPENAI_VOICES
from loadtest.processes import engine_state
from tests.running import Gateway, running_engine, running_gateway, wait_until

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."


def speak(gateway: Gateway, **fields: Any) -> httpx.Response:
    """Ask for speech the way an SDK does."""
    body = {"model": "tts-1", "voice": "alloy", "input": TEXT, "response_format": "pcm", **fields}
    body = {name: value for name, value in body.items() if value is not ...}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)


def test_pcm_is_the_engine_s_own_audio(gateway: Gateway, engine: str) -> None:
    """Nothing is lost, doubled or changed on the way."""
    through = speak(gateway, voice="belinda")
    model = httpx.get(engine + "/v1/models").json()["data"][0]["id"]
    direct = httpx.post(
        engine + "/v1/audio/speech",
        json={"model": model, "voice": "belinda", "input": TEXT, "response_format": "pcm"},
    )
    assert through.status_code == 200
    assert through.headers["content-type"] == "audio/pcm"
    assert len(through.content) > 48_000
    assert through.content == direct.content == expected_pcm(TEXT, "belinda")


@pytest.mark.parametrize(("instructions", "frames"), [(..., 92), ("A quiet room.", 91)])
def test_an_answer_cut_by_max_tokens_keeps_all_that_the_engine_made(
    gateway: Gateway, instructions: Any, frames: int
) -> None:
    """Less its last 5 ms, which fade; a whole answer of so many frames would take more tokens."""
    cut = speak(gateway, max_tokens=100, instructions=instructions).content
    assert len(cut) == frames * 1920
    assert cut[:-240] == speak(gateway, instructions=instructions).content[: len(cut) - 240]


def test_a_streamed_wav_has_open_sizes_and_the_same_samples(gateway: Gateway) -> None:
    """OpenAI's streamed WAV: both sizes 0xFFFFFFFF."""
    pcm = speak(gateway).content
    wav = speak(gateway, response_format="wav").content
    assert wav[:4] == b"RIFF"
    assert wav[4:8] == b"\xff" * 4
    assert wav[40:44] == b"\xff" * 4
    assert wav[44:] == pcm


def test_a_buffered_wav_has_exact_sizes(gateway: Gateway) -> None:
    """Strict players read the sizes."""
    answer = speak(gateway, response_format="wav", stream=False)
    assert int(answer.headers["content-length"]) == len(answer.content)
    with wave.open(io.BytesIO(answer.content)) as file:
        frames = file.getnframes()
        assert file.readframes(frames) == speak(gateway).content
    assert float(answer.headers["x-audio-duration-seconds"]) == pytest.approx(frames / 24_000)


def test_the_api_s_default_is_mp3(gateway: Gateway) -> None:
    """A request without a format gets what OpenAI's API gives."""
    answer = speak(gateway, response_format=...)
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.content[:1] == b"\xff"


def test_streams_tell_proxies_not_to_gather_them(gateway: Gateway) -> None:
    """First audio at once, also behind nginx."""
    answer = speak(gateway)
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("voice", [*sorted(OPENAI_VOICES), "BELINDA.wav", {"id": "mabel"}])
def test_every_openai_voice_works(gateway: Gateway, voice: Any) -> None:
    """Clients such as pipecat refuse any other name."""
    assert speak(gateway, voice=voice).status_code == 200


@pytest.mark.parametrize(
    "model",
    ["tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15", "chatterbox", ...],
)
def test_names_of_models_that_clients_send_are_accepted(gateway: Gateway, model: Any) -> None:
    """All mean the served model; so does none."""
    assert speak(gateway, model=model).status_code == 200


def test_only_input_is_required(gateway: Gateway) -> None:
    """Chatterbox clients send neither model nor voice."""
    answer = httpx.post(
        gateway.url + "/v1/audio/speech", json={"model": "tts-1", "input": TEXT}, timeout=120
    )
    assert answer.status_code == 200


def test_sse_carries_the_same_audio_and_its_usage(gateway: Gateway) -> None:
    """Deltas in base64, then `done` with audio tokens at 25 a second."""
    pcm = speak(gateway).content
    answer = speak(gateway, stream_format="sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == pcm
    assert events[-1]["type"] == "speech.audio.done"
    usage = events[-1]["usage"]
    assert usage["output_tokens"] == len(pcm) // 1920
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_the_engine_is_always_asked_for_bounded_pcm(gateway: Gateway, engine: str) -> None:
    """Never a format of the engine's, never without max_tokens, never with a client's id."""
    httpx.post(
        gateway.url + "/v1/audio/speech",
        json={"model": "tts-1", "input": TEXT, "voice": "mabel", "response_format": "wav"},
        headers={"X-Request-Id": "mine"},
        timeout=120,
    )
    seen = engine_state(engine)["requests"][-1]
    body = seen["body"]
    assert body["response_format"] == "pcm"
    assert body["voice"] == "mabel"
    assert 11 < body["max_tokens"] < 8192
    assert body["audio_chunk_overlap_size"] >= 11
    assert seen["headers"]["x-request-id"] != "mine"


def test_sampling_fields_are_passed_on(gateway: Gateway, engine: str) -> None:
    """0 is what many clients say for "all"; the engine says -1."""
    fields = {"temperature": 0.7, "top_p": 0.5, "top_k": 0, "max_tokens": 200, "seed": 7}
    assert speak(gateway, **fields).status_code == 200
    body = engine_state(engine)["requests"][-1]["body"]
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 0.5, -1)
    assert body["max_tokens"] <= 200


def test_special_tokens_never_reach_the_engine(gateway: Gateway, engine: str) -> None:
    """One of them would kill the container."""
    nested = "Hello <|<|AUDIO|>AUDIO|> there <|eot_id|> my friend."
    assert speak(gateway, input=nested).status_code == 200
    assert "<|" not in engine_state(engine)["requests"][-1]["body"]["input"]


def test_instructions_become_the_scene(gateway: Gateway, engine: str) -> None:
    """OpenAI's `instructions` go where the model looks for them."""
    assert speak(gateway, instructions="whispered <|AUDIO|>, hushed").status_code == 200
    system = engine_state(engine)["requests"][-1]["body"]["messages"][0]
    assert system["role"] == "system"
    assert "<|scene_desc_start|>\nwhispered , hushed" in system["content"]
    assert "<|AUDIO" not in system["content"]


def test_punctuation_alone_is_silence_without_the_engine(gateway: Gateway, engine: str) -> None:
    """Home Assistant probes with a full stop and wants a 2xx."""
    before = engine_state(engine)["requests_total"]
    answer = speak(gateway, input=".")
    assert answer.status_code == 200
    assert answer.content == bytes(14_400)  # 0.3 s
    assert engine_state(engine)["requests_total"] == before


BAD = [
    (b"", None),
    (b"not json", None),
    (b"[]", None),
    (b'"text"', None),
    (b"\xff\xfe", None),
    (b'{"model": "tts-1", "input": NaN}', None),
    (b"[" * 100_000, None),
    (b'{"model": "tts-1"}', "input"),
    (b'{"model": "tts-1", "input": null}', "input"),
    (b'{"model": "tts-1", "input": 5}', "input"),
    (b'{"model": "tts-1", "input": ""}', "input"),
    (b'{"model": "tts-1", "input": " \\n\\t "}', "input"),
    (b'{"model": "tts-1", "input": "\\ud800"}', "input"),
    (b'{"model": "tts-1", "input": "x", "voice": 5}', "voice"),
    (b'{"model": "tts-1", "input": "x", "voice": {}}', "voice"),
    (b'{"model": "tts-1", "input": "x", "speed": 0.1}', "speed"),
    (b'{"model": "tts-1", "input": "x", "speed": 4.5}', "speed"),
    (b'{"model": "tts-1", "input": "x", "speed": "fast"}', "speed"),
    (b'{"model": "tts-1", "input": "x", "speed": 1e999}', "speed"),
    (b'{"model": "tts-1", "input": "x", "response_format": "ogg"}', "response_format"),
    (b'{"model": "tts-1", "input": "x", "stream_format": "ws"}', "stream_format"),
    (b'{"model": "tts-1", "input": "x", "sample_rate": 11025}', "sample_rate"),
    (b'{"model": "tts-1", "input": "x", "temperature": -1}', "temperature"),
    (b'{"model": "tts-1", "input": "x", "top_p": 0}', "top_p"),
    (b'{"model": "tts-1", "input": "x", "max_tokens": 5}', "max_tokens"),
    (json.dumps({"model": "tts-1", "input": "x" * 100_001}).encode(), "input"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
def test_bad_input_is_a_400_in_openai_s_shape(
    gateway: Gateway, body: bytes, param: str | None
) -> None:
    """The envelope that SDKs parse, the field at fault, and an id to ask about."""
    answer = httpx.post(
        gateway.url + "/v1/audio/speech", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "fields", "headers", "status", "code"),
    [
        ("POST", "/v1/audio/speech", {"voice": "nobody"}, {}, 404, "voice_not_found"),
        ("POST", "/v1/audio/speech", {"model": "whisper-9"}, {}, 404, "model_not_found"),
        ("GET", "/v1/audio/speech", {}, {}, 405, "method_not_allowed"),
        ("PUT", "/v1/models", {}, {}, 405, "method_not_allowed"),
        ("GET", "/v1/nothing", {}, {}, 404, "not_found"),
        ("GET", "/v1/models/whisper-9", {}, {}, 404, "model_not_found"),
        (
            "POST",
            "/v1/audio/speech",
            {},
            {"Content-Type": "text/plain"},
            415,
            "unsupported_content_type",
        ),
    ],
)
def test_other_refusals_have_the_same_shape(
    gateway: Gateway,
    method: str,
    path: str,
    fields: dict[str, str],
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    """404, 405 and 415 are errors of the API, not of a web framework."""
    body = json.dumps({"model": "tts-1", "input": TEXT, **fields})
    answer = httpx.request(
        method,
        gateway.url + path,
        content=body,
        headers={"Content-Type": "application/json", **headers},
    )
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"]


def test_a_body_over_the_limit_is_refused_and_the_client_hears_it(gateway: Gateway) -> None:
    """413 with the envelope, not a broken pipe."""
    body = b'{"model": "tts-1", "input": "' + b"x" * (33 * 1024 * 1024) + b'"}'
    answer = httpx.post(
        gateway.url + "/v1/audio/speech",
        content=body,
        headers={"Content-Type": "application/json"},
        timeout=120,
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("given", "kept"), [("trace-1.a_B", True), ("x" * 65, False), ("a b", False), ("", False)]
)
def test_a_client_s_request_id_is_kept_when_it_is_harmless(
    gateway: Gateway, given: str, *, kept: bool
) -> None:
    """Ids stand in logs: nothing else may get there by them."""
    answer = httpx.get(gateway.url + "/v1/models", headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) is kept
    assert answer.headers["x-request-id"]


def test_lists_have_the_shapes_that_front_ends_want(gateway: Gateway) -> None:
    """Open WebUI, Home Assistant and Kokoro clients read these."""
    client = httpx.Client(base_url=gateway.url)
    with client:
        models = client.get("/v1/models").json()
        assert models["object"] == "list"
        served = models["data"][0]["id"]
        assert client.get(f"/v1/models/{served}").json()["id"] == served
        assert {"id": "tts-1"} in client.get("/v1/audio/models").json()["models"]
        voices = client.get("/v1/audio/voices", params={"limit": 100}).json()["voices"]
        assert {"belinda", "alloy"} <= {voice["id"] for voice in voices}
        assert all(voice["name"] for voice in voices)
        plain = client.get("/v1/audio/voices", params={"legacy": "true"}).json()["voices"]
        assert plain == [voice["id"] for voice in voices]


def test_browsers_may_ask(gateway: Gateway) -> None:
    """CORS, for pages of this machine."""
    preflight = httpx.options(
        gateway.url + "/v1/audio/speech",
        headers={
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_client_that_leaves_frees_the_engine_and_the_slot() -> None:
    """The GPU is worth more than the rest of a sentence that nobody hears."""
    slow = "A sentence that goes on and on. " * 60
    with running_engine("--voice", "simulated", "--tokens-per-second", "50") as slow_engine:
        address = slow_engine.address
        with running_gateway(upstreams=address) as running:
            url = running.url + "/v1/audio/speech"
            with (
                httpx.Client(timeout=120) as client,
                client.stream(
                    "POST", url, json={"model": "tts-1", "input": slow, "response_format": "pcm"}
                ) as answer,
            ):
                chunks = answer.iter_raw()
                next(chunks)
                assert engine_state(address)["running"] >= 1
            wait_until(lambda: engine_state(address)["running"] == 0, "the engine is free", 15)
            wait_until(lambda: running.runtime.admission.in_flight == 0, "the slot is free", 15)
            assert all(u.in_flight == 0 for u in running.runtime.pool.upstreams)
            wait_until(
                lambda: (
                    running.metric("gateway_requests_total", surface="openai", outcome="cancelled")
                    == 1
                ),
                "it is counted",
                15,
            )


def test_counters_tell_what_the_client_got(gateway: Gateway) -> None:
    """Audio seconds to the sample, bytes and outcomes."""
    labels = {"surface": "openai", "response_format": "wav", "voice": "vex"}
    seconds = gateway.metric("gateway_audio_seconds_total", **labels)
    done = gateway.metric("gateway_requests_total", surface="openai", outcome="ok")
    sent = gateway.metric("gateway_response_bytes_total")
    answer = speak(gateway, voice="vex", response_format="wav")
    heard = (len(answer.content) - 44) / 48_000
    wait_until(
        lambda: (
            gateway.metric("gateway_requests_total", surface="openai", outcome="ok") == done + 1
        ),
        "it is counted",
    )
    assert gateway.metric("gateway_audio_seconds_total", **labels) - seconds == pytest.approx(heard)
    assert gateway.metric("gateway_response_bytes_total") - sent == len(answer.content)


@pytest.fixture(scope="module")
def sample() -> bytes:
    """Two seconds of a voice sample as a WAV file."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(expected_pcm("A sample.", "vex", 50))
    return sink.getvalue()


def pairs_of(messages: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
    """The (transcript, audio) pairs of a chat request."""
    return [
        (before["content"], base64.b64decode(message["content"][0]["input_audio"]["data"]))
        for before, message in itertools.pairwise(messages)
        if message["role"] == "assistant"
    ]


def test_a_reference_goes_along_as_a_pair(gateway: Gateway, engine: str, sample: bytes) -> None:
    """Cloning through extra JSON keys: transcript, then audio, then the text."""
    encoded = base64.b64encode(sample).decode()
    answer = speak(gateway, reference_audio_base64=encoded, reference_text="A <|AUDIO|>sample.")
    assert answer.status_code == 200
    messages = engine_state(engine)["requests"][-1]["body"]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert pairs_of(messages)[0][0] == "A sample."
    assert pairs_of(messages)[0][1][:4] == b"RIFF"
    assert messages[-1]["content"] == TEXT


def test_a_reference_may_be_a_file_of_a_form(gateway: Gateway, engine: str, sample: bytes) -> None:
    """The same as multipart, with numbers as text."""
    answer = httpx.post(
        gateway.url + "/v1/audio/speech",
        data={
            "model": "tts-1",
            "input": TEXT,
            "speed": "1.0",
            "response_format": "pcm",
            "reference_text": "Hm.",
        },
        files={"voice_file": ("voice.wav", sample, "audio/wav")},
        timeout=120,
    )
    assert answer.status_code == 200
    assert pairs_of(engine_state(engine)["requests"][-1]["body"]["messages"])[0][0] == "Hm."


def test_speakers_of_a_dialogue_get_their_samples_and_descriptions(
    gateway: Gateway, engine: str, sample: bytes
) -> None:
    """References in the order of the speakers; a preset is described, words are passed on."""
    encoded = base64.b64encode(sample).decode()
    text = "[SPEAKER0] Good morning to you. [SPEAKER1] And a good morning to you, my friend."
    answer = speak(
        gateway,
        input=text,
        voices={"SPEAKER0": "chadwick", "SPEAKER1": "deep <|AUDIO|> and slow"},
        references=[{"audio": encoded, "text": "One."}, {"audio": encoded, "text": "Two."}],
    )
    assert answer.status_code == 200
    messages = engine_state(engine)["requests"][-1]["body"]["messages"]
    assert "SPEAKER0: masculine\nSPEAKER1: deep and slow" in messages[0]["content"]
    assert [said for said, _ in pairs_of(messages)] == ["[SPEAKER0] One.", "[SPEAKER1] Two."]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reference_audio_base64": "http://10.0.0.1/voice.wav"}, "reference_audio_base64"),
        ({"reference_audio_base64": "file:///etc/passwd"}, "reference_audio_base64"),
        ({"reference_audio_base64": "not base64!"}, "reference_audio_base64"),
        ({"reference_audio_base64": base64.b64encode(b"text").decode()}, "reference_audio_base64"),
        ({"references": [{"audio": "https://example.org/a.wav"}]}, "references"),
        ({"references": [{"audio": "QUJD"}] * 9}, "references"),
        ({"voices": {"nobody": "belinda"}}, "voices"),
    ],
)
def test_a_bad_reference_is_refused(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    """Nothing is fetched, nothing is guessed."""
    answer = speak(gateway, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_prompt_that_leaves_no_room_is_refused(gateway: Gateway, sample: bytes) -> None:
    """The engine would answer 400, which would look like its own failure."""
    reference = {"audio": base64.b64encode(sample).decode(), "text": "word " * 800}
    answer = speak(gateway, references=[reference] * 8, system_prompt="scene " * 1000)
    assert answer.status_code == 400
    assert "context" in answer.json()["error"]["message"]


def test_a_broken_form_is_refused(gateway: Gateway) -> None:
    """Never a 500."""
    answer = httpx.post(
        gateway.url + "/v1/audio/speech",
        content=b"--x\r\nnonsense",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code in {400, 422}

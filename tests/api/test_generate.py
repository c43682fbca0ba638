"""The legacy proxy's routes over real HTTP, against a simulated engine in its own process."""

from __future__ import annotations

import base64
import io
import struct
import time
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.api.generate import BATCH_CONCURRENCY, MOST_BATCH_ITEMS
from loadtest.processes import engine_state
from tests.listen import decode
from tests.running import Gateway, running_engine, running_gateway, wait_until
from tests.voices.recordings import good_files, heard, tone, wav

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun."
DIALOGUE = "[SPEAKER0] Good morning to you, my friend. [SPEAKER1] Good morning, how are you?"
DEFAULT_PROMPT = (
    "Generate audio following instruction.\n\n<|scene_desc_start|>\n"
    "Audio is recorded from a quiet room.\n<|scene_desc_end|>"
)
SAMPLE = base64.b64encode(wav(tone(2.0, 24_000))).decode()


def generate(gateway: Gateway, text: Any = TEXT, **fields: Any) -> httpx.Response:
    """Ask the way the proxy's clients do."""
    return httpx.post(gateway.url + "/generate", json={"text": text, **fields}, timeout=120)


def batch(gateway: Gateway, items: Any) -> httpx.Response:
    """Ask for several at once."""
    return httpx.post(gateway.url + "/generate/batch", json=items, timeout=120)


def last_body(engine: str) -> dict[str, Any]:
    """What the engine was asked last."""
    body = engine_state(engine)["requests"][-1]["body"]
    assert isinstance(body, dict)
    return body


def pcm_of(wav_file: bytes) -> bytes:
    """The samples of a complete WAV; its sizes must be exact."""
    assert struct.unpack("<I", wav_file[4:8])[0] == len(wav_file) - 8
    with wave.open(io.BytesIO(wav_file)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        frames: bytes = file.readframes(file.getnframes())
    assert len(frames) == len(wav_file) - 44
    return frames


def test_a_request_is_answered_with_a_complete_wav(gateway: Gateway) -> None:
    """Sizes are exact, the length is told, and the audio is the engine's own."""
    answer = generate(gateway)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert pcm_of(answer.content) == expected_pcm(TEXT, "")


def test_the_proxy_s_headers_are_there(gateway: Gateway) -> None:
    """Its benchmark client reads them."""
    began = time.monotonic()
    headers = generate(gateway).headers
    assert 0 < float(headers["x-generation-time"]) <= time.monotonic() - began
    assert headers["x-sample-rate"] == "24000"
    assert headers["x-mode"] == "single"
    assert "x-chunks" not in headers
    assert int(headers["x-concurrent-requests"]) >= 1


@pytest.mark.parametrize("text", ["", "   ", "\n\t \u3000"])
def test_a_blank_text_is_refused_in_the_proxy_s_words(gateway: Gateway, text: str) -> None:
    """Clients compare the message."""
    answer = generate(gateway, text)
    assert answer.status_code == 400
    assert answer.json() == {"detail": "Text cannot be empty"}


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("temperature", 0.1, 1.5),
        ("top_p", 0, 1),
        ("top_k", 1, 100),
        ("max_tokens", 256, 8192),
    ],
)
def test_sampling_fields_have_the_proxy_s_ranges(
    gateway: Gateway, field: str, low: float, high: float
) -> None:
    """Both ends are taken; beyond them 422 names the field."""
    step = 1 if isinstance(high, int) and high > 1 else 0.01
    for good in (low, high):
        assert generate(gateway, **{field: good}).status_code == 200
    for bad in (low - step, high + step, "many", False):
        answer = generate(gateway, **{field: bad})
        assert answer.status_code == 422
        details = answer.json()["detail"]
        assert [detail["loc"] for detail in details] == [["body", field]]
        assert all(detail["msg"] and detail["type"] for detail in details)


@pytest.mark.parametrize(("body", "loc"), [({}, "text"), ({"text": None}, "text")])
def test_a_missing_text_is_a_422(gateway: Gateway, body: Any, loc: str) -> None:
    """A text that is not there differs from a blank one, as it did."""
    answer = httpx.post(gateway.url + "/generate", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", loc]


@pytest.mark.parametrize("body", [b"", b"not json", b"\xff", b'{"text": NaN}'])
def test_what_is_no_json_is_refused_with_a_detail(gateway: Gateway, body: bytes) -> None:
    """Never OpenAI's envelope on this surface."""
    answer = httpx.post(
        gateway.url + "/generate", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


def test_unknown_fields_are_ignored(gateway: Gateway) -> None:
    """Other servers with a /generate have fields of their own; their clients work here too."""
    answer = generate(
        gateway,
        language_id="en",
        exaggeration=99,
        cfg_weight="x",
        seed=[],
    )
    assert answer.status_code == 200
    assert pcm_of(answer.content) == expected_pcm(TEXT, "")


@pytest.mark.parametrize("path", ["/etc/passwd", "../nobody.wav", "http://example.com/a.wav"])
def test_a_file_that_is_no_voice_is_refused_and_not_ignored(gateway: Gateway, path: str) -> None:
    """An ignored recording would give another voice than was asked for."""
    answer = httpx.post(
        gateway.url + "/generate", json={"text": "Hi.", "audio_prompt_path": path}, timeout=120
    )
    assert answer.status_code == 400
    assert "audio_prompt_path" in answer.json()["detail"]


def test_the_proxy_s_defaults_reach_the_engine(gateway: Gateway, engine: str) -> None:
    """The quiet room, its temperature and its top values."""
    generate(gateway)
    body = last_body(engine)
    assert body["messages"] == [
        {"role": "system", "content": DEFAULT_PROMPT},
        {"role": "user", "content": TEXT},
    ]
    assert (body["temperature"], body["top_p"], body["top_k"]) == (1.0, 0.95, 50)


def test_what_the_client_sets_reaches_the_engine(gateway: Gateway, engine: str) -> None:
    """A prompt and sampling fields of its own; its bound of tokens is kept."""
    long_text = " ".join([TEXT] * 8)  # about 45 s, 1,100 tokens
    answer = generate(
        gateway,
        long_text,
        system_prompt="Speak like a pirate.",
        temperature=0.3,
        top_p=0.5,
        top_k=7,
        max_tokens=300,
    )
    body = last_body(engine)
    assert body["messages"][0] == {"role": "system", "content": "Speak like a pirate."}
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.3, 0.5, 7)
    assert body["max_completion_tokens"] == 300
    assert 280 * 1920 <= len(pcm_of(answer.content)) <= 300 * 1920


def test_a_reference_goes_before_the_text_as_a_pair(gateway: Gateway, engine: str) -> None:
    """What the sample says, the sample itself, then the text."""
    answer = generate(gateway, reference_audio_base64=SAMPLE, reference_text="A steady tone.")
    assert answer.status_code == 200
    system, said, sample, text = last_body(engine)["messages"]
    assert system == {"role": "system", "content": DEFAULT_PROMPT}
    assert said == {"role": "user", "content": "A steady tone."}
    assert text == {"role": "user", "content": TEXT}
    assert sample["role"] == "assistant"
    (part,) = sample["content"]
    assert part["type"] == "input_audio"
    assert part["input_audio"]["format"] == "wav"
    assert len(heard(base64.b64decode(part["input_audio"]["data"]))) == pytest.approx(48_000, 0.1)


def test_a_reference_without_words_has_the_proxy_s_default(gateway: Gateway, engine: str) -> None:
    """Its clients often send none."""
    generate(gateway, reference_audio_base64=SAMPLE)
    assert last_body(engine)["messages"][1]["content"] == "Please speak naturally."


@pytest.mark.parametrize("kind", ["mp3 of 1", "m4a of 2", "opus", "webm", "flac of 24 bits"])
def test_references_come_in_other_formats_and_as_data_urls(gateway: Gateway, kind: str) -> None:
    """Browsers record WebM and read files into data URLs."""
    encoded = base64.b64encode(good_files()[kind]).decode()
    for value in (encoded, "data:audio/x;base64," + encoded):
        assert generate(gateway, reference_audio_base64=value).status_code == 200


@pytest.mark.parametrize(
    "reference",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://files.example/voice.wav",
        "file:///etc/passwd",
        "%%%",
        base64.b64encode(b"just a text").decode(),
        base64.b64encode(wav(tone(0.2, 24_000))).decode(),
        base64.b64encode(wav(tone(60.0, 8000), 8000)).decode(),
    ],
)
def test_a_reference_that_cannot_be_used_is_a_400(
    gateway: Gateway, engine: str, reference: str
) -> None:
    """Nothing is fetched, and the engine is not asked."""
    before = engine_state(engine)["requests_total"]
    answer = generate(gateway, reference_audio_base64=reference)
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)
    assert engine_state(engine)["requests_total"] == before


def test_several_speakers_get_their_prompt_and_headers(gateway: Gateway, engine: str) -> None:
    """Tags are not read out, and every speaker has a line inside the scene."""
    answer = generate(gateway, DIALOGUE, system_prompt="A busy street.")
    assert answer.headers["x-mode"] == "multi-speaker"
    assert answer.headers["x-chunks"] == "1"
    system = last_body(engine)["messages"][0]["content"]
    assert "do not read out the tag" in system
    scene = system.partition("<|scene_desc_start|>")[2].partition("<|scene_desc_end|>")[0]
    assert scene.index("A busy street.") < scene.index("SPEAKER0: feminine")
    assert scene.index("SPEAKER0: feminine") < scene.index("SPEAKER1: masculine")


def test_one_speaker_s_tag_alone_is_no_dialogue(gateway: Gateway) -> None:
    """Two different tags make one."""
    answer = generate(gateway, "[SPEAKER0] Hello there. [SPEAKER0] And hello again.")
    assert answer.headers["x-mode"] == "single"
    assert "x-chunks" not in answer.headers


def test_chunks_of_a_long_dialogue_are_counted(gateway: Gateway, engine: str) -> None:
    """As many as generations were made for it."""
    before = engine_state(engine)["requests_total"]
    answer = generate(gateway, f"{DIALOGUE} " * 15)
    chunks = int(answer.headers["x-chunks"])
    assert chunks > 1
    assert engine_state(engine)["requests_total"] - before == chunks


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "pcm"])
def test_another_response_format_may_be_asked_for(gateway: Gateway, form: str) -> None:
    """An extra of this gateway."""
    answer = generate(gateway, response_format=form)
    assert answer.status_code == 200
    samples, rate_hz = decode(answer.content, form)
    assert len(samples) / rate_hz == pytest.approx(len(expected_pcm(TEXT, "")) / 48_000, abs=0.2)


def test_stream_sends_audio_as_it_is_made(gateway: Gateway) -> None:
    """Another extra: open sizes, the same samples."""
    answer = generate(gateway, stream=True)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.content[40:44] == b"\xff" * 4
    assert answer.content[44:] == expected_pcm(TEXT, "")
    assert float(answer.headers["x-generation-time"]) > 0


def test_a_listed_voice_may_be_asked_for(gateway: Gateway) -> None:
    """An unknown one is a 404 in this surface's shape."""
    answer = generate(gateway, voice="Belinda")
    assert pcm_of(answer.content) == expected_pcm(TEXT, "belinda")
    unknown = generate(gateway, voice="nobody")
    assert unknown.status_code == 404
    assert "belinda" in unknown.json()["detail"]


def test_a_batch_is_answered_in_order_and_one_bad_item_fails_alone(gateway: Gateway) -> None:
    """Each item is the object of /generate; its failure is its own."""
    texts = [f"This is item number {name} of the batch." for name in ("one", "two", "three")]
    items = [
        {"text": texts[0]},
        {"text": " "},
        {"text": texts[1], "temperature": 9},
        "no object",
        {"text": texts[2], "reference_audio_base64": "http://host.example/a.wav"},
        {"text": texts[2]},
    ]
    answer = batch(gateway, items)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["total"], body["successful"], body["failed"]) == (6, 2, 4)
    results = body["results"]
    assert [result["index"] for result in results] == list(range(6))
    assert [result["success"] for result in results] == [True, False, False, False, False, True]
    for result in results:
        if not result["success"]:
            assert set(result) == {"index", "success", "error"}
            assert isinstance(result["error"], str)
    assert results[1]["error"] == "Text cannot be empty"
    assert "temperature" in results[2]["error"]
    for index, text in ((0, texts[0]), (5, texts[2])):
        assert set(results[index]) == {"index", "success", "audio_base64", "generation_time"}
        audio = base64.b64decode(results[index]["audio_base64"])
        assert pcm_of(audio) == expected_pcm(text, "")
        assert results[index]["generation_time"] > 0


@pytest.mark.parametrize("items", [[], [{"text": "x"}] * (MOST_BATCH_ITEMS + 1), {"text": "x"}])
def test_a_batch_is_a_list_of_bounded_length(gateway: Gateway, items: Any) -> None:
    """All answers of one are held in memory."""
    answer = batch(gateway, items)
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


def test_stats_count_requests_and_what_became_of_them(gateway: Gateway) -> None:
    """The proxy's names; batch items count as requests."""
    url = gateway.url + "/stats"
    before = httpx.get(url).json()
    assert {
        "total_requests",
        "successful_requests",
        "failed_requests",
        "total_generation_time",
        "concurrent_requests",
        "peak_concurrent",
        "avg_generation_time",
    } <= set(before)
    generate(gateway)
    generate(gateway, " ")
    batch(gateway, [{"text": TEXT}, {"text": ""}])

    def counted() -> bool:
        now = httpx.get(url).json()
        return bool(now["total_requests"] == before["total_requests"] + 4)

    wait_until(counted, "all four are counted", 15)
    now = httpx.get(url).json()
    assert now["successful_requests"] == before["successful_requests"] + 2
    assert now["failed_requests"] == before["failed_requests"] + 2
    assert now["total_generation_time"] > before["total_generation_time"]
    assert now["concurrent_requests"] == 0
    assert now["peak_concurrent"] >= 1
    assert now["avg_generation_time"] > 0


@pytest.fixture(scope="module")
def slow_engine() -> Iterator[str]:
    """A simulated engine that takes its time."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "50") as supervisor:
        yield supervisor.address


@pytest.mark.parametrize("path", ["/generate", "/generate/batch"])
def test_a_client_that_leaves_frees_the_engine(slow_engine: str, path: str) -> None:
    """All items of a batch stop; no more than the bound of them ran."""
    with running_gateway(upstreams=slow_engine) as running:
        item = {"text": "A sentence that goes on and on. " * 20}
        body: Any = [item] * (BATCH_CONCURRENCY + 4) if path.endswith("batch") else item
        expected = BATCH_CONCURRENCY if path.endswith("batch") else 1
        aborted = engine_state(slow_engine)["aborted"]
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.Client(timeout=httpx.Timeout(10, read=1.5)) as client,
        ):
            client.post(running.url + path, json=body)
        wait_until(lambda: engine_state(slow_engine)["running"] == 0, "the engine is free", 15)
        wait_until(lambda: running.runtime.admission.in_flight == 0, "the slots are free", 15)
        assert engine_state(slow_engine)["aborted"] - aborted == expected

"""Any server of OpenAI's speech API behind the gateway: found out, asked rightly, read whole."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.upstream.detection import Answers, may_charge
from gateway.upstream.dialects import identify, split_address
from gateway.voices.aliases import spread
from tests.running import Gateway, running_gateway, wait_until
from tests.upstream.speech_servers import ENGINES, SpeechServer, pcm_of, running_server
from tests.voices.recordings import tone, wav

KINDS = tuple(kind for kind in ENGINES if kind != "higgs")
TEXT = "Hello there, how are you today?"
RECORDING = base64.b64encode(wav(tone(4.0, 24_000))).decode()
Pair = tuple[Gateway, SpeechServer]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A gateway in front of one server."""
    with (
        running_server(request.param) as (address, server),
        running_gateway(upstreams=address) as gateway,
    ):
        yield gateway, server


def speak(gateway: Gateway, **fields: Any) -> httpx.Response:
    """Ask for raw samples."""
    body = {"model": "tts-1", "input": TEXT, "response_format": "pcm", **fields}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)


def test_it_is_found_out(pair: Pair) -> None:
    """From what it lists."""
    gateway, server = pair
    (upstream,) = gateway.runtime.pool.upstreams
    assert upstream.capabilities.engine == ENGINES[server.kind]


@pytest.mark.parametrize("stream", [True, False])
def test_every_sample_arrives(pair: Pair, *, stream: bool) -> None:
    """Whatever shape it came in."""
    gateway, server = pair
    answer = speak(gateway, voice="alloy", stream=stream)
    assert answer.status_code == 200
    expected = pcm_of(TEXT, str(server.asked[-1].get("voice", "")))
    if server.kind == "mp3":
        assert len(answer.content) == pytest.approx(len(expected), abs=2 * 24_000 // 10)
    else:
        assert answer.content == expected


def test_all_thirteen_names_work_and_differ_where_there_are_voices(pair: Pair) -> None:
    """Spread over what it lists; passed on where it lists nothing."""
    gateway, server = pair
    names = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx")
    for name in (*names, "sage", "shimmer", "verse"):
        assert speak(gateway, voice=name, input="Hello.").status_code == 200
    voices = {body.get("voice") for body in server.asked if body["input"] == "Hello."}
    assert len(voices) > 1


def test_a_failure_of_the_model_is_no_audio(pair: Pair) -> None:
    """502, however the server words it, and nothing of its text."""
    gateway, _ = pair
    answer = speak(gateway, voice="alloy", input="Please explode now.")
    assert answer.status_code == 502
    assert "CUDA" not in answer.text


TAKES = {
    "vllm-omni": {"recording", "instructions"},
    "vllm-omni higgs v2": {"recording"},
    "sglang-omni": {"recording", "recording without words"},
    "litellm": {"instructions"},
}


@pytest.mark.parametrize(
    ("need", "fields", "words"),
    [
        (
            "recording",
            {"reference_audio_base64": RECORDING, "reference_text": "Hello."},
            "imitates a recorded voice",
        ),
        (
            "recording without words",
            {"reference_audio_base64": RECORDING},
            "imitates a recorded voice",
        ),
        ("instructions", {"voice": "alloy", "instructions": "Whisper."}, "takes instructions"),
    ],
)
def test_what_it_lacks_is_refused_in_words(
    pair: Pair, need: str, fields: dict[str, str], words: str
) -> None:
    """A recording and a scene go where they are taken, and are never dropped."""
    gateway, server = pair
    before = len(server.asked)
    answer = speak(gateway, **fields)
    if need in TAKES.get(server.kind, set()):
        assert answer.status_code == 200, answer.text
        asked = server.asked[-1]
        assert asked.get("ref_text") == fields.get("reference_text")
        assert asked.get("instructions") == fields.get("instructions")
        assert asked.get("ref_audio", "data:audio/wav;base64,").startswith("data:audio/wav;base64,")
    else:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported_by_engine"
        assert f"No engine at hand {words}" in answer.text
        assert len(server.asked) == before


def test_a_dialogue_is_said_turn_by_turn(pair: Pair) -> None:
    """Each turn in its speaker's voice, without its tag."""
    gateway, server = pair
    before = len(server.asked)
    text = "[SPEAKER0] Good morning to you.\n[SPEAKER1] And a good day to you."
    assert speak(gateway, voice="alloy", input=text).status_code == 200
    turns = {body["input"]: body.get("voice") for body in server.asked[before:]}
    assert set(turns) == {"Good morning to you.", "And a good day to you."}
    assert len(set(turns.values())) == 2


def test_a_client_that_leaves_ends_the_request() -> None:
    """The server sees it at once."""
    with (
        running_server("kokoro", pause_seconds=0.2) as (address, server),
        running_gateway(upstreams=address) as gateway,
    ):
        body = {"model": "tts-1", "voice": "alloy", "input": TEXT * 5, "response_format": "pcm"}
        url = gateway.url + "/v1/audio/speech"
        with httpx.stream("POST", url, json=body, timeout=120) as answer:
            next(answer.iter_raw())
        wait_until(lambda: server.left, "the server knows")


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("kind", ["vllm-omni", "sglang-omni", "unknown"])
def test_any_rate_is_read_and_resampled(kind: str, rate_hz: int) -> None:
    """From the WAV's header, X-Sample-Rate or an event."""
    with (
        running_server(kind, rate_hz=rate_hz) as (address, server),
        running_gateway(upstreams=address) as gateway,
    ):
        answer = speak(gateway, voice="alloy")
        expected = pcm_of(TEXT, str(server.asked[-1].get("voice", "")))
        assert len(answer.content) == pytest.approx(len(expected), abs=200)


def test_nothing_is_said_where_the_owner_may_charge() -> None:
    """Ready means that the lists are there."""
    with (
        running_server("kokoro") as (address, server),
        running_gateway(upstreams=address, probe_speech="never"),
    ):
        assert server.asked == []


def test_a_named_dialect_is_not_found_out() -> None:
    """openai+http://… holds where the address would be taken for something else."""
    with (
        running_server("unknown") as (address, _),
        running_gateway(upstreams="openai+" + address) as gateway,
    ):
        (upstream,) = gateway.runtime.pool.upstreams
        assert upstream.address == address
        assert speak(gateway, voice="alloy").status_code == 200


@pytest.mark.parametrize(
    ("address", "charges"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://10.1.2.3:8000", False),
        ("http://[::1]:8000", False),
        ("http://localhost", False),
        ("http://vllm:8000", False),
        ("http://tts.lan:8000", False),
        ("https://api.openai.com", True),
        ("http://8.8.8.8:8000", True),
    ],
)
def test_public_addresses_may_charge(address: str, *, charges: bool) -> None:
    """Private networks and single names do not."""
    assert may_charge(address) is charges


def test_entries_may_name_a_dialect() -> None:
    """Before the scheme."""
    assert split_address("openai+http://a:1") == ("openai", "http://a:1")
    assert split_address("http://a:1") == (None, "http://a:1")


def test_the_container_is_known_by_its_bare_list() -> None:
    """vLLM-Omni, which names the same owner, answers an object; a bare list may be empty."""
    models = {"data": [{"id": "x", "owned_by": "vllm"}]}
    for voices in (["belinda"], []):
        container = identify("http://a", None, Answers(models=models, voices=voices))
        assert container is not None
        assert container.server is None
    omni = identify("http://a", None, Answers(models=models, voices={"voices": []}))
    assert omni is not None
    assert omni.capabilities.engine == "vllm-omni"
    assert identify("http://a", None, Answers()) is None


def test_the_owner_vllm_alone_tells_nothing() -> None:
    """The container, vLLM-Omni and a vLLM without speech name it: without voices it stays open."""
    alone = Answers(models={"data": [{"id": "x", "owned_by": "vllm"}]})
    assert identify("http://a", None, alone) is None
    told = identify("http://a", "openai", alone)
    assert told is not None
    assert told.capabilities.engine == "vllm-omni"


def test_names_are_spread_and_settings_come_first() -> None:
    """An alias whose voice is listed holds; others get one in turn."""
    found = spread(("alloy", "ash", "echo"), ("a", "b"), {"alloy": "B", "me": "a", "x": "none"})
    assert found == {"alloy": "b", "ash": "b", "echo": "a", "me": "a"}

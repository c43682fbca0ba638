"""Tests of the whole engine over HTTP, with a tiny model of random weights on the CPU."""

from __future__ import annotations

import argparse
import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from engines.higgs.command import add_higgs_arguments, create_higgs
from engines.server.app import EngineOptions
from engines.server.presets import PresetFolder
from loadtest.processes import wait_until
from tests.engines.serving import serving
from tests.voices.recordings import tone, wav

LONG = "This goes on for quite some time, as you will hear. " * 40


@contextmanager
def engine(*arguments: str, presets: Path | None = None) -> Iterator[httpx.Client]:
    """A client of a running engine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-model-len", type=int)
    add_higgs_arguments(parser)
    parsed = parser.parse_args(["--model", "random-tiny", "--device", "cpu", *arguments])
    options = EngineOptions(presets=PresetFolder(presets, may_be_empty=True) if presets else None)
    with (
        serving(create_higgs(parsed, options)) as address,
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        yield client


@pytest.fixture(scope="module", name="client")
def client_fixture() -> Iterator[httpx.Client]:
    """An engine with two slots."""
    with engine("--slots", "2") as client:
        yield client


def body_of(text: str = "Hello there.", **fields: Any) -> dict[str, Any]:
    """The fields of a speech request."""
    return {"model": "random-tiny", "voice": "default", "input": text, **fields}


def speech(client: httpx.Client, text: str = "Hello there.", **fields: Any) -> httpx.Response:
    """A speech request."""
    return client.post("/v1/audio/speech", json=body_of(text, **fields))


def reference(recording: bytes) -> list[dict[str, Any]]:
    """A conversation whose speaker a recording shows."""
    data = base64.b64encode(recording).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return [
        {"role": "system", "content": "Generate audio following instruction."},
        {"role": "user", "content": "A tone."},
        {"role": "assistant", "content": [audio]},
        {"role": "user", "content": "Hello."},
    ]


def metric(client: httpx.Client, name: str) -> float:
    """A sample's value; the sum over its labels."""
    lines = client.get("/metrics").text.splitlines()
    found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{")]
    assert found
    return sum(found)


def test_a_seed_repeats_and_another_does_not(client: httpx.Client) -> None:
    """To the byte, whatever runs beside it."""
    one, again, other = (speech(client, seed=seed).content for seed in (7, 7, 8))
    assert len(one) > 20 * 1920
    assert one == again
    assert one != other
    assert speech(client).content != speech(client).content


def test_an_answer_is_as_long_as_its_text_or_as_max_tokens_says(client: httpx.Client) -> None:
    """Random weights never end; the container's count of tokens holds."""
    answer = speech(client, "Hello there, how are you today? " * 3)
    assert 4 < len(answer.content) / 48_000 < 12
    assert len(speech(client, LONG, max_tokens=100).content) == 92 * 1920
    assert speech(client, LONG, max_tokens=10).content == b""


@pytest.mark.parametrize("token", ["<|AUDIO|>", "<|AUDIO_OUT|>", "<|eot_id|>", "<|audio_eos|>"])
def test_a_special_token_in_a_text_is_text(client: httpx.Client, token: str) -> None:
    """It kills the container."""
    assert speech(client, f"Hello {token} there.").status_code == 200
    assert client.get("/health").status_code == 200


def test_a_reference_changes_the_voice_and_is_prefilled_once(client: httpx.Client) -> None:
    """The keys and values of its turns are kept."""
    messages = reference(wav(tone(1.5, 24_000), 24_000))
    body = {"messages": messages, "seed": 3, "max_completion_tokens": 60}
    hits = metric(client, "vllm:gpu_prefix_cache_hits_total")
    answers = [client.post("/v1/chat/completions", json=body).json() for _ in range(2)]
    first, second = (answer["choices"][0]["message"]["audio"]["data"] for answer in answers)
    assert first == second
    assert metric(client, "vllm:gpu_prefix_cache_hits_total") == hits + 1
    del messages[1:3]
    plain = client.post("/v1/chat/completions", json=body).json()
    assert plain["choices"][0]["message"]["audio"]["data"] != first


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        (wav(tone(0.01, 24_000), 24_000), "shorter than"),
        (wav(tone(1.0, 24_000), 24_000)[:44], "shorter than"),
        (wav(tone(1.0, 8_000), 8_000)[:44], "shorter than"),
        (wav(tone(200, 8_000), 8_000), "longer"),
    ],
)
def test_a_reference_that_cannot_be_used_is_a_400(
    client: httpx.Client, recording: bytes, words: str
) -> None:
    """In the contract's envelope."""
    answer = client.post("/v1/chat/completions", json={"messages": reference(recording)})
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_a_sampling_value_that_is_no_number_is_a_400(client: httpx.Client) -> None:
    """The container lets NaN through to the engine."""
    for value in ("NaN", "Infinity"):
        assert speech(client, temperature=value).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        *({"top_k": value} for value in (2**31, 2**63, 10**30)),
        *({"temperature": value} for value in (1e-45, 1e-30, 1e39, 1e300)),
        {"top_p": 1e-45},
        *({"seed": value} for value in (-(2**63), 2**63 - 1)),
        *({"audio_chunk_size": value} for value in (-1, 10**30)),
    ],
)
def test_a_value_that_no_register_holds_fails_nobody(
    client: httpx.Client, fields: dict[str, Any]
) -> None:
    """Its slot's fields are of 32 bits, and one loop serves all."""
    assert len(speech(client, max_tokens=20, **fields).content) == 12 * 1920
    assert client.get("/health").status_code == 200


def test_a_refusal_does_not_echo_megabytes(client: httpx.Client) -> None:
    """Nor one error for each of a hundred thousand."""
    for messages in ("x" * 3_000_000, [5] * 100_000):
        answer = client.post("/v1/chat/completions", json={"messages": messages})
        assert answer.status_code == 400
        assert answer.json()["type"] == "BadRequestError"
        assert len(answer.content) < 20_000


def test_clients_that_leave_while_they_wait_leave_nothing_behind() -> None:
    """In the queue, with and without a recording."""
    with engine("--slots", "1", "--queue", "8") as client:
        address = (client.base_url.host, client.base_url.port or 0)
        with client.stream("POST", "/v1/audio/speech", json=body_of(LONG)) as running:
            chunks = running.iter_raw()
            assert next(chunks)
            waiting = [socket.create_connection(address) for _ in range(4)]
            for number, connection in enumerate(waiting):
                sound = wav(tone(1.0, 8_000, 0.1 * number), 8_000)
                speak = ("audio/speech", body_of(LONG))
                chat = ("chat/completions", {"messages": reference(sound)})
                connection.sendall(post(*(chat if number % 2 else speak)))
            wait_until(lambda: metric(client, "vllm:num_requests_waiting") == 4, "they wait")
            for connection in waiting:
                connection.close()
            wait_until(lambda: not metric(client, "vllm:num_requests_waiting"), "they are gone")
            assert metric(client, "tts:generations_ended_total") == 4
        wait_until(lambda: not metric(client, "vllm:num_requests_running"), "the slot is free")
        assert speech(client, max_tokens=20).status_code == 200


def post(path: str, body: dict[str, Any]) -> bytes:
    """A request as it stands on the wire."""
    data = json.dumps(body).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def test_presets_come_from_a_folder_of_the_containers_format(tmp_path: Path) -> None:
    """Each with its own recording, from the moment in which it is there."""
    voices = {}
    for name, level in (("low", 0.02), ("high", 0.9)):
        (tmp_path / f"{name}.wav").write_bytes(wav(tone(1.0, 24_000, level), 24_000))
        voices[name] = {"transcript": "A tone.", "audio_file": f"{name}.wav"}
    with engine("--slots", "1", presets=tmp_path) as client:
        assert client.get("/v1/audio/voices").json() == ["default"]
        assert len(speech(client).content) > 20 * 1920
        (tmp_path / "config.json").write_text(json.dumps(voices))
        assert client.get("/v1/audio/voices").json() == ["low", "high"]
        low, high = (speech(client, voice=name, seed=1).content for name in voices)
        assert len(low) == len(high)
        assert low != high


def test_a_full_engine_answers_429_and_a_client_that_leaves_frees_its_slot() -> None:
    """One slot, one place in the queue."""
    with engine("--slots", "1", "--queue", "1") as client:
        with client.stream("POST", "/v1/audio/speech", json=body_of(LONG)) as running:
            chunks = running.iter_raw()  # kept: its end would close the connection
            assert next(chunks)
            waiting = speech_in_background(client.base_url)
            wait_until(lambda: metric(client, "vllm:num_requests_waiting"), "one waits")
            refused = speech(client)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
        assert len(waiting()) > 20 * 1920
        wait_until(lambda: not metric(client, "vllm:num_requests_running"), "all slots are free")
        assert metric(client, "tts:generations_ended_total") == 2


def speech_in_background(address: httpx.URL) -> Any:
    """Start a request in a thread; what is returned waits for its body."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    pool = ThreadPoolExecutor(1)

    def ask() -> bytes:
        with httpx.Client(base_url=address, timeout=120) as client:
            return speech(client).content

    result = pool.submit(ask).result
    pool.shutdown(wait=False)
    return result


def test_capabilities_tell_what_the_process_was_started_with(client: httpx.Client) -> None:
    """And no more than it can."""
    found = client.get("/capabilities").json()
    assert found["slots"] == 2
    assert found["seed"] is True
    assert found["languages"] == ["en", "zh", "de", "ko"]
    assert found["max_model_len"] == 4096
    assert client.get("/v1/models").json()["data"][0]["max_model_len"] == 4096


def test_deterministic_answers_do_not_depend_on_their_neighbours() -> None:
    """Alone and among others."""
    with engine("--slots", "3", "--deterministic") as client:
        alone = speech(client, seed=5).content
        others = [speech_in_background(client.base_url) for _ in range(2)]
        assert speech(client, seed=5).content == alone
        for other in others:
            assert np.frombuffer(other(), "<i2").any()

"""docs/contract.md section 4 on the simulator: streamed and whole chat answers."""

from __future__ import annotations

import base64
import io
import itertools
import json
import time
from typing import Any

import httpx
import pytest
import soundfile as sf

from engines.simulator.waveform import expected_pcm, frames_of
from tests.contract.simulators import BYTES_PER_TOKEN, CHAT, LONG, TEXT, Simulator, simulator

FRAMES = frames_of(TEXT)


def shapes(answer: httpx.Response) -> list[tuple[str, Any]]:
    """The events of a stream as (what, value); the last line must be [DONE]."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [_shape(json.loads(line)) for line in lines[:-1]]


def _shape(event: dict[str, Any]) -> tuple[str, Any]:
    if "error" in event:
        return ("error", event["error"])
    if not event["choices"]:
        return ("usage", event["usage"])
    (choice,) = event["choices"]
    if choice["finish_reason"]:
        return ("finish", choice["finish_reason"])
    delta = choice["delta"]
    if delta.get("audio"):
        assert delta["audio"]["expires_at"] == 0
        return ("audio", base64.b64decode(delta["audio"]["data"]))
    return ("role" if "role" in delta else "token", delta)


def kinds(events: list[tuple[str, Any]]) -> list[str]:
    """What the events are."""
    return [kind for kind, _ in events]


def sound(events: list[tuple[str, Any]]) -> bytes:
    """Their PCM."""
    return b"".join(value for kind, value in events if kind == "audio")


def usage_of(prompt_tokens: int, tokens: int) -> tuple[str, dict[str, int]]:
    """A usage event."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
    return ("usage", {**usage, "total_tokens": prompt_tokens + tokens})


def test_a_natural_end_is_one_event_a_token(engine: Simulator) -> None:
    """The role, a token each, audio where a chunk leaves, the tail, `stop`, usage."""
    events = shapes(engine.chat(LONG, stream=True, stream_options={"include_usage": True}))
    assert events[0] == ("role", {"role": "assistant", "content": ""})
    assert events[1] == ("token", {"content": "", "audio": None})
    assert events[-2:] == [("finish", "stop"), usage_of(40 + len(LONG), 132)]
    assert len(events) == 1 + 132 + 1
    places = [number for number, kind in enumerate(kinds(events)) if kind == "audio"]
    assert places == [33, 69, 94, 119, 131]  # one later than in speech
    assert sound(events) == expected_pcm(LONG, "")


def test_on_length_the_tail_comes_after_the_finish_event(engine: Simulator) -> None:
    """With finish_reason null: read to [DONE]."""
    events = shapes(engine.chat(LONG, stream=True, max_completion_tokens=60))
    assert kinds(events)[-2:] == ["finish", "audio"]
    assert ("finish", "length") in events
    assert kinds(events).count("finish") == 1
    assert sound(events) == expected_pcm(LONG, "", 51)


def test_chunk_knobs_stand_inside_audio(engine: Simulator) -> None:
    """And are as exact as in speech."""
    knobs = {"audio_chunk_size": 13, "audio_chunk_overlap_size": 11}
    audio = {"format": "mp3", "voice": "alloy", **knobs}
    events = shapes(engine.chat(LONG, stream=True, audio=audio))
    assert kinds(events).index("audio") == 21
    assert sound(events) == expected_pcm(LONG, "")  # the format is ignored


@pytest.mark.parametrize(
    "fields", [{"max_completion_tokens": 9}, {"audio": {"audio_chunk_size": -3}}]
)
def test_too_few_rows_are_an_error_event(engine: Simulator, fields: dict[str, Any]) -> None:
    """Where speech is silent."""
    events = shapes(engine.chat(stream=True, **fields))
    assert events[-1][0] == "error"
    assert events[-1][1]["message"] == "unsupported operand type(s) for *: 'NoneType' and 'int'"


@pytest.mark.parametrize("fault", ["raise", "raiselate-32640"])
def test_an_error_is_an_event_and_the_end(engine: Simulator, fault: str) -> None:
    """Before and after the first audio; no usage, and the buffered audio is dropped."""
    text = f"fault-{fault} {LONG}"
    options = {"include_usage": True}
    events = shapes(engine.chat(text, stream=True, stream_options=options))
    assert kinds(events)[-1] == "error"
    assert events[-1][1]["code"] == 400
    assert "usage" not in kinds(events)
    assert len(sound(events)) == (0 if fault == "raise" else 32_640)


def test_a_model_that_answers_in_text_gives_no_audio(engine: Simulator) -> None:
    """A stream ends as if all were well; without a stream it is a 400, and the text is lost."""
    events = shapes(engine.chat("fault-textonly " + LONG, stream=True))
    assert sound(events) == b""
    assert events[-1] == ("finish", "stop")
    answer = engine.chat("fault-textonly " + LONG)
    assert answer.status_code == 400
    assert answer.json()["message"] == "need at least one array to concatenate"


def test_tokens_come_while_the_audio_is_made() -> None:
    """A stream is never still for long, however large its chunks are."""
    with simulator("--tokens-per-second", "100") as slow:
        message = {"role": "user", "content": TEXT}
        knobs = {"voice": "alloy", "audio_chunk_size": 250}
        body = {"messages": [message], "stream": True, "audio": knobs}
        with httpx.stream("POST", slow.url + CHAT, json=body, timeout=120) as answer:
            times = [time.monotonic() for data in answer.iter_raw() if data]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1
    assert len(times) > 10


@pytest.mark.parametrize("name", ["wav", "flac", "mp3"])
def test_a_whole_answer_carries_one_file(engine: Simulator, name: str) -> None:
    """Whatever the knobs; usage counts frames + 12."""
    audio = {"format": name, "voice": "alloy", "audio_chunk_size": 5}
    body = engine.chat(audio=audio).json()
    (choice,) = body["choices"]
    message = choice["message"]
    assert (message["content"], message["role"]) == ("", "assistant")
    samples, rate_hz = sf.read(io.BytesIO(base64.b64decode(message["audio"]["data"])))
    assert rate_hz == 24_000
    assert len(samples) / 960 == pytest.approx(FRAMES, abs=0 if name != "mp3" else 4)
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == usage_of(40 + len(TEXT), FRAMES + 11)[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_completion_tokens": 10}, "need at least one array to concatenate"),
        ({"audio": {"format": "opus", "voice": "alloy"}}, "Unknown format: opus"),
        ({"audio": {"format": "pcm16", "voice": "alloy"}}, "Unknown format: pcm16"),
        ({"audio": {"format": "aac", "voice": "alloy"}}, "literal_error"),
        ({"audio": {"format": "wav", "voice": "belinda"}}, "literal_error"),
        ({"stream_options": {"include_usage": True}}, "Stream options can only be defined"),
    ],
)
def test_refusals_of_whole_answers_are_400(
    engine: Simulator, fields: dict[str, Any], message: str
) -> None:
    """Some of them after the full generation."""
    answer = engine.chat(**fields)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_failures_of_whole_answers(engine: Simulator) -> None:
    """An engine's error is an empty 500; no messages, one in plain text."""
    answer = engine.chat("fault-raise")
    assert (answer.status_code, answer.content) == (500, b"")
    assert "content-type" not in answer.headers
    answer = engine.post(CHAT, {"messages": []})
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_max_completion_tokens_cut_a_whole_answer(engine: Simulator) -> None:
    """From 11 tokens on there is audio; the reason is `length`."""
    body = engine.chat(max_completion_tokens=60).json()
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "length"
    data = base64.b64decode(choice["message"]["audio"]["data"])
    assert len(data) == 44 + 52 * BYTES_PER_TOKEN

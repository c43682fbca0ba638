"""Long text as one answer, through the whole gateway against a simulated engine."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.audio.join import Joiner
from gateway.text.boundary import Boundary
from gateway.text.split import iter_segments
from loadtest.processes import engine_state
from loadtest.prose import prose
from tests.asking import VOICE, Asked, plan_faults, said, say
from tests.running import Gateway, running_engine, running_gateway, wait_until

LONGEST_JOIN_SECONDS = 1.0


@pytest.fixture
def slow_engine() -> Iterator[str]:
    """A simulated engine that needs about a second for a segment."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "1000") as supervisor:
        yield supervisor.address


def drain(answer: httpx.Response, heard: bytearray) -> None:
    """Read a stream to its end, whatever that is."""
    for data in answer.iter_raw():
        heard += data


def flat(text: str) -> str:
    """The text with single spaces: how a segment's white space reads is the prompt's affair."""
    return " ".join(text.split())


def in_order(source: str, bodies: Sequence[dict[str, Any]]) -> list[str]:
    """The generations' texts by their place in the source: made at once, they may come mixed."""
    source = flat(source)
    texts = {said(body) for body in bodies}
    assert all(source.count(flat(text)) == 1 for text in texts)
    return sorted(texts, key=lambda text: source.index(flat(text)))


def joined(source: str, texts: Sequence[str], voice: str = VOICE) -> bytes:
    """What the client must hear of these texts: their whole audio, joined in order."""
    joiner, pcm = Joiner(), b""
    paragraphs = set(itertools.accumulate(len(part.split()) for part in source.split("\n\n")))
    words = 0
    for text in texts:
        joiner.start_segment(Boundary.PARAGRAPH if words in paragraphs else Boundary.SENTENCE)
        pcm += joiner.feed(expected_pcm(text, voice)) + joiner.end_segment()
        words += len(text.split())
    return pcm + joiner.finish()


def test_nothing_of_a_long_text_is_lost_or_doubled(gateway: Gateway, engine: str) -> None:
    """Every word is asked for once, and all of its audio is heard once and in order."""
    source = prose(5000)
    with Asked(engine) as asked:
        answer = say(gateway, source)
    assert answer.headers["transfer-encoding"] == "chunked"
    texts = in_order(source, asked.bodies)
    assert len(texts) > 20
    assert len(asked.bodies) == len(texts)
    assert flat(" ".join(texts)) == flat(source)
    assert {body["voice"] for body in asked.bodies} == {VOICE}
    whole = sum(len(expected_pcm(text, VOICE)) for text in texts)
    joins = len(texts) - 1
    assert 0 < len(answer.content) - whole < joins * LONGEST_JOIN_SECONDS * 48_000
    assert answer.content == joined(source, texts)


def test_text_up_to_a_thousand_characters_is_one_generation(gateway: Gateway, engine: str) -> None:
    """A cut is heard, however well it is joined."""
    source = prose(200)[:1000].rpartition(".")[0] + "."
    assert len(source) > 900
    with Asked(engine) as asked:
        answer = say(gateway, source)
    assert len(asked.bodies) == 1
    assert said(asked.bodies[0]).split() == source.split()
    assert answer.content == expected_pcm(said(asked.bodies[0]), VOICE)


def test_without_a_preset_the_first_segment_is_the_others_voice(
    gateway: Gateway, engine: str
) -> None:
    """A scene alone chooses a voice anew each time; the first one chosen is kept."""
    source = prose(700)
    with Asked(engine) as asked:
        answer = httpx.post(
            gateway.url + "/generate",
            json={
                "text": source,
                "system_prompt": "A calm voice.",
                "response_format": "pcm",
                "stream": True,
            },
            timeout=120,
        )
    texts = in_order(source, asked.bodies)
    assert flat(" ".join(texts)) == flat(source)
    assert len(texts) > 3
    first, *others = asked.bodies
    assert len(first["messages"]) == 2
    assert said(first) == texts[0]
    sound = expected_pcm(texts[0], "")
    for body in others:
        system, words, sample, _ = body["messages"]
        assert system["content"] == "A calm voice."
        assert words["content"] == texts[0]
        wav = base64.b64decode(sample["content"][0]["input_audio"]["data"])
        assert wav[44:] == sound
    assert answer.content == joined(source, texts, "")


@pytest.mark.parametrize("fault", ["reset", "raise", "error", "empty", "cut-48000", "truncate-480"])
def test_a_segment_that_fails_is_made_again_alone(
    gateway: Gateway, engine: str, fault: str
) -> None:
    """The client hears nothing of it, and no other segment is made twice."""
    source = prose(500)
    with Asked(engine) as asked:
        plan_faults(engine, "slow", "slow", fault)
        answer = say(gateway, source)
    texts = in_order(source, asked.bodies)
    assert flat(" ".join(texts)) == flat(source)
    assert len(asked.bodies) == len(texts) + 1
    assert answer.content == joined(source, texts)


@pytest.mark.parametrize("words", [100, 500])
def test_a_whole_answer_is_repaired_wherever_it_broke(
    gateway: Gateway, engine: str, words: int
) -> None:
    """Nothing was sent yet, so the client need never know."""
    source = prose(words)
    plan_faults(engine, "cut-960000")  # 20 s, behind the first chunk
    answer = say(gateway, source, stream=False)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content == say(gateway, source).content


def test_a_stream_that_breaks_off_is_aborted(gateway: Gateway, engine: str) -> None:
    """Half an answer must not look like a whole one; what was sent is the beginning."""
    source = prose(500)
    whole = say(gateway, source).content
    plan_faults(engine, "cut-480000")
    url, body = (
        gateway.url + "/v1/audio/speech",
        {"model": "tts-1", "input": source, "voice": VOICE},
    )
    heard = bytearray()
    with (
        httpx.Client(timeout=120) as client,
        client.stream("POST", url, json={**body, "response_format": "pcm"}) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        drain(answer, heard)
    assert 48_000 < len(heard) <= 480_000
    assert whole.startswith(heard)
    wait_until(lambda: engine_state(engine)["running"] == 0, "no segment runs on", 15)
    wait_until(lambda: gateway.runtime.admission.in_flight == 0, "the slots are free", 15)


def test_a_long_text_never_starves_a_short_one(slow_engine: str) -> None:
    """Its further segments take only slots that nobody waits for."""
    short = "A short sentence in between."
    with running_gateway(upstreams=slow_engine, max_in_flight=2) as gateway:
        long_answer: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: long_answer.append(say(gateway, prose(1800))))
        thread.start()
        try:
            wait_until(
                lambda: engine_state(slow_engine)["running"] == 2, "the long one has both slots", 15
            )
            for _ in range(2):
                assert say(gateway, short).content == expected_pcm(short, VOICE)
            assert not long_answer
        finally:
            thread.join(120)
        assert long_answer[0].status_code == 200
        assert engine_state(slow_engine)["peak_running"] == 2


def test_a_client_that_leaves_stops_all_segments(slow_engine: str) -> None:
    """Every slot comes back, on the gateway and on the engine."""
    with running_gateway(upstreams=slow_engine, max_in_flight=6) as gateway:
        body = {"voice": VOICE, "model": "tts-1", "input": prose(3000), "response_format": "pcm"}
        with (
            httpx.Client(timeout=120) as client,
            client.stream("POST", gateway.url + "/v1/audio/speech", json=body) as answer,
        ):
            chunks = answer.iter_raw()
            next(chunks)
            wait_until(
                lambda: engine_state(slow_engine)["running"] == 6, "all slots are in use", 15
            )
        wait_until(lambda: engine_state(slow_engine)["running"] == 0, "the engine is free", 15)
        wait_until(lambda: gateway.runtime.admission.in_flight == 0, "the slots are free", 15)
        assert engine_state(slow_engine)["aborted"] == 6
        assert all(upstream.in_flight == 0 for upstream in gateway.runtime.pool.upstreams)
        assert gateway.metric("gateway_in_flight_requests") == 0


def test_the_prose_has_no_sentence_twice() -> None:
    """Or a doubled segment could pass for an honest one."""
    segments = [segment.text for segment in iter_segments(prose(5000))]
    assert len(set(segments)) == len(segments)


def test_audio_that_was_made_for_a_client_that_left_stays_counted(slow_engine: str) -> None:
    """Segments made ahead cost the GPU their time, though nobody hears them."""
    body = {"voice": VOICE, "model": "tts-1", "input": prose(1500), "response_format": "pcm"}
    with running_gateway(upstreams=slow_engine) as gateway:

        def tokens() -> float:
            return gateway.metric("gateway_audio_tokens_total")

        url = gateway.url + "/v1/audio/speech"
        with httpx.stream("POST", url, json=body, timeout=120) as answer:
            parts = answer.iter_raw()
            while not (heard := tokens()):
                next(parts)
        wait_until(
            lambda: gateway.metric("gateway_request_duration_seconds_count") == 1, "it is counted"
        )
        assert tokens() >= heard
        wait_until(lambda: engine_state(slow_engine)["running"] == 0, "the engine is free", 15)

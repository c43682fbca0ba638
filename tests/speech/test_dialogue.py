"""Long dialogue through the whole gateway: every voice stays its speaker's."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.audio.join import Joiner
from gateway.text.boundary import Boundary
from loadtest.prose import sentences
from tests.running import Gateway
from tests.voices.recordings import tone, wav

TAG = re.compile(r"\[SPEAKER(\d+)\]")
TURNS = 32
PAUSE_SECONDS = 0.7
Performance = tuple[httpx.Response, list[list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """A pause of its own between turns."""
    return {"turn_pause_seconds": PAUSE_SECONDS}


@pytest.fixture(scope="module")
def performance(gateway: Gateway, engine: str) -> Performance:
    """A long dialogue, asked for once."""
    return perform(gateway, engine, written(turns()))


def turns() -> list[tuple[int, str]]:
    """A conversation of three that no one generation can hold."""
    return [(number % 3, text) for number, text in zip(range(TURNS), sentences(), strict=False)]


def written(conversation: list[tuple[int, str]]) -> str:
    """As clients send it."""
    return " ".join(f"[SPEAKER{speaker}] {text}" for speaker, text in conversation)


def spoken(text: str) -> list[tuple[int, str]]:
    """The turns of one generation."""
    before, *tagged = TAG.split(text)
    assert not before.strip()
    speakers, said = map(int, tagged[::2]), tagged[1::2]
    return list(zip(speakers, (" ".join(part.split()) for part in said), strict=True))


def perform(gateway: Gateway, engine: str, text: str, **fields: Any) -> Performance:
    """Ask for a dialogue; the answer, and the messages of each generation in order."""
    state = engine + "/simulator/state"
    before = httpx.get(state).json()["requests_total"]
    answer = httpx.post(
        gateway.url + "/generate",
        json={"text": text, "response_format": "pcm", **fields},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text
    after = httpx.get(state).json()
    made = after["requests"][before - after["requests_total"] :]
    return answer, [seen["body"]["messages"] for seen in made]


def samples_of(message: dict[str, Any]) -> bytes:
    """The audio of a reference in the prompt, without its header."""
    return base64.b64decode(message["content"][0]["input_audio"]["data"])[44:]


def test_every_generation_begins_with_its_speaker_s_tag(performance: Performance) -> None:
    """All turns are said once, in order, by who says them."""
    _, generations = performance
    assert len(generations) > 2
    said = [turn for messages in generations for turn in spoken(messages[-1]["content"])]
    assert said == turns()


def test_earlier_audio_is_every_later_generation_s_context(performance: Performance) -> None:
    """The first fixes the voices, the one before carries the conversation on."""
    _, generations = performance
    texts = [messages[-1]["content"] for messages in generations]
    for number, messages in enumerate(generations):
        expected = list(dict.fromkeys([texts[0], texts[number - 1]])) if number else []
        pairs = messages[1:-1]
        assert [pair["content"] for pair in pairs[::2]] == expected
        assert [samples_of(pair) for pair in pairs[1::2]] == [
            expected_pcm(text, "") for text in expected
        ]


def test_one_prompt_names_all_speakers_in_every_generation(gateway: Gateway, engine: str) -> None:
    """Whoever else is in a part of it, a speaker sounds the same."""
    conversation = [*turns(), (3, "I was here all the time.")]
    _, generations = perform(gateway, engine, written(conversation), system_prompt="A cold hall.")
    prompts = {messages[0]["content"] for messages in generations}
    assert len(prompts) == 1
    (prompt,) = prompts
    assert "A cold hall." in prompt
    lines = [line for line in prompt.splitlines() if line.startswith("SPEAKER")]
    assert lines == [
        "SPEAKER0: feminine",
        "SPEAKER1: masculine",
        "SPEAKER2: feminine",
        "SPEAKER3: masculine",
    ]


def test_the_client_s_own_reference_stays_in_front(gateway: Gateway, engine: str) -> None:
    """What was cloned is heard in every part."""
    own_sample = base64.b64encode(wav(tone(3.0, 24_000))).decode()
    _, generations = perform(
        gateway,
        engine,
        written(turns()),
        reference_audio_base64=own_sample,
        reference_text="A voice of my own.",
    )
    own = {(m[1]["content"], samples_of(m[2])) for m in generations}
    assert len(own) == 1
    assert own.pop()[0] == "A voice of my own."
    assert len(generations[-1]) == 1 + 3 * 2 + 1


def test_pauses_between_turns_are_the_operator_s(performance: Performance) -> None:
    """The joined audio is all generations' audio with that pause at each join."""
    answer, generations = performance
    joiner, pcm = Joiner({Boundary.TURN: PAUSE_SECONDS}), b""
    for messages in generations:
        joiner.start_segment(Boundary.TURN)
        pcm += joiner.feed(expected_pcm(messages[-1]["content"], "")) + joiner.end_segment()
    assert answer.content == pcm + joiner.finish()
    whole = sum(len(expected_pcm(messages[-1]["content"], "")) for messages in generations)
    joins = len(generations) - 1
    assert len(answer.content) - whole == pytest.approx(joins * PAUSE_SECONDS * 48_000, rel=0.05)


def test_a_short_dialogue_is_one_generation(gateway: Gateway, engine: str) -> None:
    """As the model likes it best."""
    conversation = turns()[:4]
    answer, generations = perform(gateway, engine, written(conversation))
    ((_, message),) = generations
    assert spoken(message["content"]) == conversation
    assert answer.content == expected_pcm(message["content"], "")

"""`exaggeration` and `cfg_weight`: the effect, shown on the prompt that the engine receives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engines.voice import Job
from gateway.text.expression import Expression, expression_of, knob_of
from gateway.upstream.probes import WARM_UP_TEXT
from tests.api.chatterbox.conftest import RECORDING
from tests.running import running_gateway
from tests.voices.echo import EchoVoice, running_echo


@pytest.mark.parametrize(
    ("exaggeration", "cfg_weight", "words", "temperature"),
    [
        (None, None, None, None),
        (0.5, 0.5, None, None),
        (0.31, 0.79, None, None),
        (0.79, 0.31, None, None),
        (0.8, None, "expressive, energetic", 1.1),
        (2.0, 0.5, "expressive, energetic", 1.1),
        (0.3, None, "calm, monotone", None),
        (None, 0.3, "slow pace", None),
        (None, 0.8, "fast pace", None),
        (0.9, 0.2, "expressive, energetic, slow pace", 1.1),
        (-50, 50, "calm, monotone, fast pace", None),
    ],
)
def test_knobs_far_from_neutral_become_words(
    exaggeration: float | None,
    cfg_weight: float | None,
    words: str | None,
    temperature: float | None,
) -> None:
    """The table of docs/compatibility.md."""
    scene = f"Speech is {words}." if words else None
    assert expression_of(exaggeration, cfg_weight) == Expression(scene, temperature)


@pytest.mark.parametrize("value", ["high", "", None, True, [1], {}, float("nan"), 10**400, "inf"])
def test_what_is_no_number_is_neutral(value: Any) -> None:
    """Never an error where nobody has checked it."""
    assert knob_of(value) is None
    assert knob_of("0.9") == 0.9


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, EchoVoice]]:
    """A gateway with a library, and the engine that remembers what it was told."""
    folder = tmp_path_factory.mktemp("voices")
    with (
        running_echo() as (address, voice),
        running_gateway(upstreams=address, voices_dir=folder) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        form: dict[str, Any] = {
            "data": {"voice_name": "bob"},
            "files": {"voice_file": ("b.wav", RECORDING)},
        }
        client.post("/voices", **form).raise_for_status()
        yield client, voice


def job_of(told: tuple[httpx.Client, EchoVoice], path: str, **fields: Any) -> Job:
    """What the engine was told of one request."""
    client, voice = told
    before = len(voice.jobs)
    client.post(path, json=fields).raise_for_status()
    (job,) = (job for job in voice.jobs[before:] if job.text != WARM_UP_TEXT)
    return job


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/audio/speech", {"input": "Hello."}),
        ("/v1/audio/speech", {"input": "Hello."}),
        ("/tts", {"text": "Hello.", "predefined_voice_id": "alloy"}),
    ],
)
def test_the_engine_is_told_in_the_scene(
    told: tuple[httpx.Client, EchoVoice], path: str, fields: dict[str, Any]
) -> None:
    """Neutral changes nothing; lively and slow stand in the scene, with more temperature."""
    neutral = job_of(told, path, **fields, exaggeration=0.5, cfg_weight=0.5)
    assert neutral.system_prompt == job_of(told, path, **fields).system_prompt
    assert neutral.temperature == 1.0
    lively = job_of(told, path, **fields, exaggeration=0.9, cfg_weight=0.2)
    assert lively.system_prompt is not None
    scene = lively.system_prompt.partition("<|scene_desc_start|>")[2]
    assert "expressive, energetic, slow pace" in scene
    assert lively.temperature == pytest.approx(1.1)
    own = job_of(told, path, **fields, exaggeration=0.9, temperature=1.3)
    assert own.temperature == pytest.approx(1.3)
    form = job_of(told, path, **fields, exaggeration=0.9, temperature=0.8)
    assert form.temperature == pytest.approx(1.1)
    assert job_of(told, path, **fields, temperature=0.8).temperature == 1.0
    assert job_of(told, path, **fields, exaggeration=0.25).temperature == 1.0


def test_a_recorded_voice_stays_in_a_scene(told: tuple[httpx.Client, EchoVoice]) -> None:
    """The recording goes along, so that it is the same person in another mood."""
    job = job_of(
        told,
        "/tts",
        text="Hi.",
        voice_mode="clone",
        reference_audio_filename="bob.wav",
        exaggeration=1.5,
    )
    assert len(job.references) == 1
    assert job.system_prompt is not None
    assert "expressive" in job.system_prompt


def test_on_the_shared_route_they_are_never_an_error_and_a_scene_is_stronger(
    told: tuple[httpx.Client, EchoVoice],
) -> None:
    """Out of range, of another type, or beside the client's own words."""
    shared = "/v1/audio/speech"
    values: tuple[Any, ...] = (99, -1, "loud", [], {"a": 1}, True)
    for value in values:
        job_of(told, shared, model="tts-1", input="Hello.", exaggeration=value, cfg_weight=value)
    own = job_of(
        told, shared, model="tts-1", input="Hello.", instructions="Whispered.", exaggeration=2
    )
    assert own.system_prompt is not None
    assert "Whispered." in own.system_prompt
    assert "expressive" not in own.system_prompt

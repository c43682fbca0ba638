"""Voices of one's own over HTTP: made, listed, spoken with, taken away."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.voices.aliases import OPENAI_VOICES
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.loudness import normalise_recording
from tests.running import Gateway, running_gateway, wait_until
from tests.voices.echo import EchoVoice, pcm_of, running_echo
from tests.voices.recordings import good_files, tone, wav

SAMPLE = wav(tone(1.5, 24_000))
OTHER = wav(tone(1.8, 24_000, 0.1))
TEXT = "How do you do, my dear?"


def heard(sample: bytes) -> bytes:
    """What the engine says with a voice."""
    return pcm_of(normalise_recording(sample, param="audio").wav)


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[str, EchoVoice]]:
    """An engine with a voice of its own, which says what it is given."""
    with running_echo() as running:
        yield running


@pytest.fixture(scope="module")
def engine(echo: tuple[str, EchoVoice]) -> str:
    """An engine that says what it is given."""
    return echo[0]


@pytest.fixture(scope="module")
def gateway_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An empty library."""
    return {"voices_dir": tmp_path_factory.mktemp("library")}


@pytest.fixture(autouse=True)
def _no_voices(gateway: Gateway) -> None:
    """Each test begins with none."""
    library = gateway.runtime.catalogue.library
    assert library is not None
    for voice in library.snapshot.voices:
        library.remove(voice.id)


def create(gateway: Gateway, name: str, sample: bytes = SAMPLE, **fields: str) -> httpx.Response:
    """POST /v1/audio/voices."""
    return httpx.post(
        gateway.url + "/v1/audio/voices",
        data={"name": name, **fields},
        files={"audio_sample": ("sample.wav", sample, "audio/wav")},
        timeout=120,
    )


def speak(gateway: Gateway, **fields: Any) -> httpx.Response:
    """POST /v1/audio/speech, PCM."""
    body = {"model": "tts-1", "input": TEXT, "response_format": "pcm", **fields}
    return httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)


def test_a_voice_is_made_as_openai_makes_it(gateway: Gateway) -> None:
    """Its answer has the fields of OpenAI's, and tells what the engine is told of the sample."""
    answer = create(gateway, "Anna", consent="cons_1", transcript="Hello there.", language="de")
    assert answer.status_code == 200, answer.text
    voice = answer.json()
    assert voice["id"].startswith("voice_")
    assert (voice["object"], voice["name"], voice["type"]) == (
        "audio.voice",
        "Anna",
        "audio_sample",
    )
    assert isinstance(voice["created_at"], int)
    assert (voice["language"], voice["transcript"]) == ("de", "Hello there.")
    library = gateway.runtime.catalogue.library
    assert library is not None
    assert library.snapshot.get("anna").consent == "cons_1"


def test_without_a_transcript_the_answer_says_what_stands_in(gateway: Gateway) -> None:
    """And `ref_text` is another word for it."""
    missing, given = create(gateway, "A").json(), create(gateway, "B", ref_text="Hi.").json()
    assert missing["transcript"] is None
    assert missing["prompt_transcript"] == "Please speak naturally."
    assert given["transcript"] == given["prompt_transcript"] == "Hi."


@pytest.mark.parametrize("kind", ["mp3 of 2", "flac of 24 bits", "m4a of 1", "webm", "opus"])
def test_samples_of_all_kinds_are_taken(gateway: Gateway, kind: str) -> None:
    """OpenAI's list of types, by the bytes and not by the name."""
    assert create(gateway, "x", good_files()[kind]).status_code == 200


def test_a_voice_speaks_by_name_alias_and_id(gateway: Gateway, echo: tuple[str, EchoVoice]) -> None:
    """On every route; and counts as `library`, whatever its name."""
    voice = create(gateway, "Anna", transcript="Hello there.").json()
    create(gateway, "Ben", OTHER)
    before = gateway.metric("gateway_requests_total", surface="openai", outcome="ok")
    for name in ("anna", "ANNA.wav", voice["id"], {"id": voice["id"]}):
        assert speak(gateway, voice=name).content == heard(SAMPLE)
    assert speak(gateway, voice="Ben").content == heard(OTHER)
    legacy = httpx.post(
        gateway.url + "/generate",
        json={"text": TEXT, "voice": "anna", "response_format": "pcm"},
        timeout=120,
    )
    assert legacy.content == heard(SAMPLE)
    assert echo[1].jobs[0].references == ()
    assert echo[1].jobs[-1].references[0][0] == "Hello there."
    after = gateway.metric("gateway_requests_total", surface="openai", outcome="ok")
    assert after == before + 5
    text = httpx.get(gateway.url + "/metrics").text
    assert 'voice="library"' in text
    assert "Anna" not in text


def test_instructions_go_along_with_the_recording(
    gateway: Gateway, echo: tuple[str, EchoVoice]
) -> None:
    """The scene is the client's, the voice stays the library's."""
    create(gateway, "Anna")
    answer = speak(gateway, voice="anna", instructions="Whispered, at night.")
    assert answer.content == heard(SAMPLE)
    assert "Whispered, at night." in (echo[1].jobs[-1].system_prompt or "")


def test_speakers_of_a_dialogue_have_voices_of_the_library(
    gateway: Gateway, echo: tuple[str, EchoVoice]
) -> None:
    """Each recording stands behind its speaker's tag; who is recorded is not described."""
    create(gateway, "Anna", transcript="I am Anna.")
    create(gateway, "Ben", OTHER, transcript="I am Ben.")
    text = "[SPEAKER0] Good morning to you. [SPEAKER1] And to you. [SPEAKER2] Hello."
    voices = {"SPEAKER2": "anna", "SPEAKER0": "Ben.wav", "SPEAKER1": "old and tired"}
    assert speak(gateway, input=text, voices=voices).status_code == 200
    job = echo[1].jobs[-1]
    assert [words for words, _ in job.references] == [
        "[SPEAKER0] I am Ben.",
        "[SPEAKER2] I am Anna.",
    ]
    assert pcm_of(job.references[1][1]) == heard(SAMPLE)
    assert "SPEAKER1: old and tired" in (job.system_prompt or "")
    assert "SPEAKER0:" not in (job.system_prompt or "")


def test_the_named_voice_is_the_first_speaker_without_one(
    gateway: Gateway, echo: tuple[str, EchoVoice]
) -> None:
    """`voice` alone gives a dialogue's first speaker a voice."""
    create(gateway, "Anna", transcript="I am Anna.")
    assert speak(gateway, input="[SPEAKER0] Good day. [SPEAKER1] Hello.", voice="anna").content
    assert [words for words, _ in echo[1].jobs[-1].references] == ["[SPEAKER0] I am Anna."]


def test_a_single_tagged_speaker_has_its_voice(gateway: Gateway) -> None:
    """`voices` counts for a text with one speaker, too."""
    create(gateway, "Anna")
    answer = speak(gateway, input=f"[SPEAKER0] {TEXT}", voices={"SPEAKER0": "anna"})
    assert answer.content == heard(SAMPLE)


def test_a_removed_voice_is_not_found_and_never_another_one(gateway: Gateway) -> None:
    """Its second removal is 404, as is speech with it; a new one of its name is the new one."""
    voice = create(gateway, "Anna").json()
    url = f"{gateway.url}/v1/audio/voices/{voice['id']}"
    first, second = httpx.delete(url), httpx.delete(url)
    assert first.json() == {"id": voice["id"], "deleted": True, "object": "audio.voice.deleted"}
    assert (second.status_code, second.json()["error"]["code"]) == (404, "voice_not_found")
    for name in ("anna", voice["id"]):
        assert speak(gateway, voice=name).status_code == 404
    assert create(gateway, "Anna", OTHER).status_code == 200
    assert speak(gateway, voice="anna").content == heard(OTHER)


def test_the_list_shows_them_with_the_rest(gateway: Gateway) -> None:
    """As objects with id and name, by pages, and as plain names."""
    url = gateway.url + "/v1/audio/voices"
    made = [create(gateway, name).json() for name in ("Anna", "Ben")]
    body = httpx.get(url).json()
    assert [voice["id"] for voice in body["data"]][:3] == [*(m["id"] for m in made), "built_in"]
    assert body["data"][0] == made[0]
    # Front ends show the ids of `voices`, and keep them: those are names.
    assert [v["id"] for v in body["voices"]] == [v["name"] for v in body["data"]]
    assert {"id": "alloy", "name": "alloy", "object": "audio.voice"} in body["data"]
    assert body["has_more"] is False
    names = httpx.get(url, params={"legacy": "true"}).json()["voices"]
    assert names == ["Anna", "Ben", "built_in", *sorted(OPENAI_VOICES)]
    # llama-swap asks for a model's voices, and reads names.
    swap = httpx.get(url, params={"model": "tts"}).json()
    assert swap == {"status": "ok", "voices": names}
    first = httpx.get(url, params={"limit": 1}).json()
    assert (first["data"], first["has_more"]) == ([made[0]], True)
    second = httpx.get(url, params={"limit": 1, "after": made[0]["id"]}).json()
    assert second["data"] == [made[1]]
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"after": "nobody"}):
        assert httpx.get(url, params=wrong).status_code == 400


@pytest.mark.parametrize(
    ("name", "status"),
    [("built_in", 409), ("BUILT_IN.wav", 409), ("", 400), ("../x", 400), ("a" * 10_000, 400)],
)
def test_a_name_that_cannot_be_is_refused(gateway: Gateway, name: str, status: int) -> None:
    """An engine's own preset keeps its name."""
    answer = create(gateway, name)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_name_is_given_once_over_http(gateway: Gateway) -> None:
    """409, with the code that says why."""
    assert create(gateway, "Anna").status_code == 200
    again = create(gateway, "anna.wav")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "voice_exists")


def test_wrong_forms_are_told_what_is_wrong(gateway: Gateway) -> None:
    """No file, no form, a silent or broken file, a described voice, a file that is too large."""
    url = gateway.url + "/v1/audio/voices"
    file = {"audio_sample": ("x.wav", SAMPLE)}
    answers = {
        "audio_sample": httpx.post(url, data={"name": "x"}, files={"other": b"x"}),
        "content-type": httpx.post(url, json={"name": "x"}),
        "type": httpx.post(url, data={"name": "x", "type": "prompt"}, files=file),
        "name": httpx.post(url, files=file),
        "language": create(gateway, "x", language="../x"),
    }
    for param, answer in answers.items():
        assert answer.status_code in {400, 415}
        assert answer.json()["error"]["param"] == param
    for broken in (b"text", wav(tone(2, 24_000, 0.0)), wav(tone(0.4, 24_000))):
        answer = create(gateway, "x", broken)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "audio_sample")
    assert create(gateway, "x", SAMPLE + bytes(10 * 2**20)).status_code == 413
    assert create(gateway, "x", SAMPLE + bytes(11 * 2**20)).status_code == 413


def test_the_librarys_default_speaks_where_no_voice_is_named(gateway: Gateway) -> None:
    """It stands before the setting's."""
    library = gateway.runtime.catalogue.library
    assert library is not None
    create(gateway, "Anna")
    library.set_default("anna")
    assert speak(gateway).content == heard(SAMPLE)
    library.set_default(None)
    assert speak(gateway).content != heard(SAMPLE)


def test_a_damaged_folder_is_an_honest_503_and_speech_goes_on(gateway: Gateway) -> None:
    """What was known before the damage can still be heard."""
    create(gateway, "Anna")
    assert gateway.runtime.settings.voices_dir is not None
    path = gateway.runtime.settings.voices_dir / "config.json"
    good = path.read_bytes()
    assert speak(gateway, voice="anna").status_code == 200
    path.write_bytes(good[:-20])
    try:
        answer = create(gateway, "Ben")
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            503,
            "voice_library_unusable",
        )
        assert speak(gateway, voice="anna").content == heard(SAMPLE)
    finally:
        path.write_bytes(good)


def test_out_of_the_box_a_voice_is_made_and_speaks(echo: tuple[str, EchoVoice]) -> None:
    """No setting names a folder."""
    with running_gateway(upstreams=echo[0]) as plain:
        assert create(plain, "Anna").status_code == 200
        assert speak(plain, voice="Anna").content == heard(SAMPLE)


def test_an_engine_that_reads_the_folder_gets_the_name(tmp_path: Path) -> None:
    """By name, and as the same recording; a voice made later comes by both ways in turn."""
    VoiceLibrary(tmp_path, now=lambda: 1_700_000_000.0).add("Anna", SAMPLE)
    with (
        running_echo(tmp_path) as (address, voice),
        running_gateway(upstreams=address, voices_dir=tmp_path) as gateway,
    ):
        assert speak(gateway, voice="anna").content == heard(SAMPLE)
        assert voice.jobs[-1].request_id.startswith("audiospeech")
        create(gateway, "Ben", OTHER)
        wait_until(lambda: "Ben" in gateway.runtime.pool.voices, "the engine lists it")
        assert speak(gateway, voice="ben").content == heard(OTHER)
        assert voice.jobs[-1].request_id.startswith("chatcmpl")
        assert speak(gateway, voice="alloy").content == heard(SAMPLE)
        httpx.delete(gateway.url + "/v1/audio/voices/anna")
        assert "Anna" in gateway.runtime.pool.voices
        assert speak(gateway, voice="anna").status_code == 404


def test_a_voice_with_a_prompt_of_its_own_is_spoken_by_that(
    gateway: Gateway, echo: tuple[str, EchoVoice]
) -> None:
    """As the engine does it with such a preset; a scene is added, in a dialogue it describes."""
    folder = gateway.runtime.settings.voices_dir
    assert folder is not None
    create(gateway, "Anna")
    config = json.loads((folder / "config.json").read_text())
    (folder / "hand.wav").write_bytes(SAMPLE)
    prompt = "Generate audio.\n\n<|scene_desc_start|>\nAn old sailor.\n<|scene_desc_end|>"
    config["sailor"] = {"transcript": "", "audio_file": "hand.wav", "system_prompt": prompt}
    (folder / "config.json").write_text(json.dumps(config))
    for fields in (
        {"voice": "sailor"},
        {"voice": "sailor", "instructions": "A storm."},
        {
            "model": "tts-1",
            "input": "[SPEAKER0] Ahoy there. [SPEAKER1] Hello.",
            "voices": {"SPEAKER0": "sailor"},
        },
    ):
        assert speak(gateway, **fields).status_code == 200
        job = echo[1].jobs[-1]
        assert job.references == ()
        assert "An old sailor." in (job.system_prompt or "")
        assert ("A storm." in (job.system_prompt or "")) == ("instructions" in fields)


def test_a_sample_given_along_decides_over_the_library(gateway: Gateway) -> None:
    """As it does over a preset."""
    create(gateway, "Anna")
    encoded = base64.b64encode(OTHER).decode()
    answer = speak(gateway, voice="anna", reference_audio_base64=encoded)
    assert answer.content == pcm_of(OTHER)
